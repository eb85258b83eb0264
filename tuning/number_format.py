"""Choose bf16 or fp32 for a job: the faster one on this machine, measured at its start.

A job keeps what it began with in its folder, so that one that is resumed goes on in the same
format. An adapter is fp32 either way. Knows processors and clocks; knows no trainer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.storage import write_atomically
from tuning.weight_formats import AskedFormat, NumberFormat

DTYPES: dict[NumberFormat, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
FORMAT_FILE = "number_format.json"
TOKENS = 64
# Of a matrix that is timed; of a larger one, some rows are. Where bf16 is emulated, one product can
# take a hundred times as long as it should
MOST_NUMBERS = 1 << 19
MEASURE_SECONDS = 0.2
# bf16 must save a fifth of the time: its units save half. A smaller gain would go with the noise of
# a measurement, and with the format the kept log-probabilities of the reference would
WORTH_ROUNDING = 0.8


@dataclass(frozen=True, slots=True)
class ChosenFormat:
    """The format and why; seconds are of one forward and backward product, where measured."""

    number_format: NumberFormat
    reason: str
    seconds: dict[str, float]

    @property
    def dtype(self) -> torch.dtype:
        """The format as torch names it."""
        return DTYPES[self.number_format]


def choose_number_format(
    asked: AskedFormat, folder: Path, *, hidden_size: int, mlp_size: int
) -> ChosenFormat:
    """The format of the job in a folder: as it began, as asked, or the faster one."""
    kept = folder / FORMAT_FILE
    if kept.is_file():
        return ChosenFormat(**json.loads(kept.read_text("utf-8")))
    chosen = _chosen_anew(asked, hidden_size, mlp_size)
    write_atomically(kept, json.dumps(asdict(chosen)).encode())
    return chosen


def time_formats(
    hidden_size: int, mlp_size: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds of one product with a frozen matrix and of the gradient of its input, by format.

    The least of as many turns as fit into `MEASURE_SECONDS`, at least one. The formats take turns,
    so that what else the machine does slows both.
    """
    rows = probed_rows(hidden_size, mlp_size)
    least: dict[str, float] = {}
    begun = clock()
    while not least or clock() - begun < MEASURE_SECONDS:
        for name, dtype in DTYPES.items():
            x, weight = (torch.ones(count, hidden_size, dtype=dtype) for count in (TOKENS, rows))
            seconds = _time_product(x, weight, clock)
            least[name] = min(seconds, least.get(name, seconds))
    return least


def probed_rows(hidden_size: int, mlp_size: int) -> int:
    """The rows of the matrix that is timed, which has `hidden_size` columns."""
    return min(mlp_size, max(1, MOST_NUMBERS // hidden_size))


def _chosen_anew(asked: AskedFormat, hidden_size: int, mlp_size: int) -> ChosenFormat:
    if asked != "auto":
        return ChosenFormat(asked, "asked for by the recipe", {})
    if torch.cuda.is_available():
        return ChosenFormat("bf16", "a CUDA device is present", {})
    return faster_format(time_formats(hidden_size, mlp_size))


def faster_format(seconds: dict[str, float]) -> ChosenFormat:
    """Choose bf16 where it was clearly faster, otherwise fp32, which rounds less."""
    clearly = seconds["bf16"] < WORTH_ROUNDING * seconds["fp32"]
    number_format: NumberFormat = "bf16" if clearly else "fp32"
    told = ", ".join(f"{name} {1000 * value:.2f} ms" for name, value in seconds.items())
    return ChosenFormat(number_format, f"measured: {told}", seconds)


def _time_product(x: Tensor, weight: Tensor, clock: Callable[[], float]) -> float:
    begun = clock()
    y = x @ weight.t()
    y @ weight
    return clock() - begun
