"""The benchmark of the loop on a device, with few tokens on a processor."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, gpu_child
from engine.models.catalogue import BaseModel
from tests.support.tiny_model import write_tiny_model


@pytest.mark.integration
def test_a_part_trains_swaps_and_serves_and_tells_the_plan_beside_the_peak(
    tiny_base: BaseModel, tmp_path: Path, kernel_cache: Path
) -> None:
    found = gpu_child.loop(tiny_base, tmp_path, "int4", small=True)
    assert list(found["stages"]) == ["sft", "dpo"]
    for stage in found["stages"].values():
        assert stage["steps"] > 0
        assert stage["tokens_per_second"] > 0
        assert stage["planned_bytes"] > 0
        assert stage["planned_to_peak"] == stage["planned_bytes"] / max(1, stage["peak_bytes"])
    wished = found["swap"]["wished_log_probability"]
    assert wished["adapter"] > wished["base"]  # it was trained to say so
    served = gpu_child.serve(tiny_base, tmp_path, "int4", small=True)
    assert {name for name, speed in served["tokens_per_second"].items() if speed > 0} == {
        "prompt",
        "streams_1",
        "streams_8",
    }


STAGE = {
    "steps": 12,
    "loss": [0.69, 0.41],
    "tokens_per_second": 5120.4,
    "planned_bytes": 3 * 2**30,
    "peak_bytes": 2 * 2**30,
    "planned_to_peak": 1.5,
}
SWAP = {
    "seconds": 0.25,
    "tokens_per_second": 900.0,
    "wished_log_probability": {"base": -50.0, "adapter": -8.5},
}


def answers(monkeypatch: pytest.MonkeyPatch, *given: Any) -> list[str]:
    """Play the child processes; returns the models that they were asked for."""
    left, asked = list(given), []

    def play(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(json.loads(command[-1])["model"])
        answer = left.pop(0)
        if answer is TimeoutError:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        if isinstance(answer, str):
            return subprocess.CompletedProcess(command, 1, "", f"Traceback\n{answer}\n")
        return subprocess.CompletedProcess(command, 0, f"noise\n{json.dumps(answer)}\n", "")

    monkeypatch.setattr(subprocess, "run", play)
    return asked


def test_a_part_that_fails_or_finds_no_time_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_tiny_model(tmp_path / "model")
    speeds = {"prompt": 8000.0, "streams_1": 40.0, "streams_8": 300.0}
    served = {"tokens_per_second": speeds, "peak_bytes": 2**29}
    loop = {"stages": {"sft": STAGE, "dpo": STAGE}, "swap": SWAP}
    asked = answers(monkeypatch, loop, "OutOfMemoryError: no", served, TimeoutError, served, served)
    document = gpu.measure(
        "cpu", tmp_path / "cache", small=True, seconds=400, embedded=str(tmp_path / "model")
    )
    assert [Path(model).name for model in asked] == [
        "model",
        "random",
        "model",
        "model",
        "random",
        "random",
    ]
    errors = {part["name"]: part["error"] for part in document["parts"] if "error" in part}
    assert errors == {
        "loop, random 1B, int4": "OutOfMemoryError: no",
        "serving, embedded, int8": "stopped: no time was left",
    }
    assert gpu.table(document).splitlines() == [
        "| part | tokens/s | peak | plan / peak | what else |",
        "|---|---|---|---|---|",
        "| loop, embedded, int4: sft | 5120 | 2.00 GB | 1.50 | loss 0.69 -> 0.41 in 12 steps |",
        "| loop, embedded, int4: dpo | 5120 | 2.00 GB | 1.50 | loss 0.69 -> 0.41 in 12 steps |",
        "| loop, embedded, int4: swap | streams 8 900 |  |  | 0.2 s; wished answer -50.0 -> -8.5 |",
        "| loop, random 1B, int4 |  |  |  | OutOfMemoryError: no |",
        "| serving, embedded, int4 | prompt 8000, streams 1 40, streams 8 300 | 0.50 GB |  |  |",
        "| serving, embedded, int8 |  |  |  | stopped: no time was left |",
        "| serving, random 1B, int4 | prompt 8000, streams 1 40, streams 8 300 | 0.50 GB |  |  |",
        "| serving, random 1B, int8 | prompt 8000, streams 1 40, streams 8 300 | 0.50 GB |  |  |",
    ]
    assert json.loads(gpu.page(document).split("```json\n")[1].split("```")[0]) == document


def test_without_time_nothing_is_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = answers(monkeypatch)
    document = gpu.measure("cuda", tmp_path, small=True, seconds=0)
    assert asked == []
    assert {part["error"] for part in document["parts"]} == {"not run: no time was left"}
    assert [part["weights"] for part in document["parts"]] == ["nf4", "nf4", *["nf4", "int8"] * 2]
