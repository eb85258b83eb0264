"""Tuning compared with trl in its fastest setting: `python -m benchmarks.tuning --json`.

Each trainer has a process of its own, and their steps alternate, so that other load slows both. The
ratio is that of the summed seconds of the same steps. trl is first tried in several settings, its
defaults (gradient checkpointing on) among them, and the fastest one is the peer. Both hold the
weights in the format that the engine chooses for this machine, except in `same`, which uses fp32.
The last line of stdout is one JSON document, as in `benchmarks.serving`; it is also printed after
each figure, so that an interrupted command leaves its results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from platformdirs import user_cache_path
from safetensors.torch import load_file

from benchmarks.tuning_child import BATCH_PAIRS
from benchmarks.tuning_data import SETS
from engine.hardware import detect, processor_name
from tuning.evaluation.statistics import clustered_mean

OFF = {"gradient_checkpointing": False}
# Candidate settings of trl. Its DPO trainer has no packing in 1.16, and Liger's kernels need a
# GPU
TRL_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "dpo": {
        "batches of 4": OFF,
        "batches of 2": {**OFF, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        "batches of 1": {**OFF, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        "as it comes": {"gradient_checkpointing": True},
    },
    "sft": {
        "batches of 4": OFF,
        "batches of 1": {**OFF, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        "padding free": {**OFF, "padding_free": True},
        "as it comes": {"gradient_checkpointing": True},
    },
}
TRIED_STEPS = 1  # timed steps of each setting, enough to see which is fastest
# For the comparison at the end: 64 training pairs at twenty times the default learning rate, so
# that few steps change decisions
END_STEPS, END_HELD_OUT, END_LEARNING_RATE = 16, 60, 4e-4


@dataclass(frozen=True, slots=True)
class Bench:
    """The shared inputs of every measurement."""

    model: str
    cache: Path
    steps: int
    data: Sequence[str]
    as_json: bool
    figures: dict[str, Any] = field(default_factory=dict)

    def tell(self, name: str, asked: str, reached: float, *, met: bool, **behind: Any) -> None:
        """Record a figure and print it."""
        self.figures[name] = {"asked": asked, "reached": reached, "met": met, **behind}
        print(f"{name}: {reached:.3g} (asked {asked})", file=sys.stderr, flush=True)
        if self.as_json:
            print(json.dumps(self.document()), flush=True)

    def document(self) -> dict[str, Any]:
        """Return the figures so far, and the environment."""
        return {"figures": self.figures, **_surroundings(self)}


class Child:
    """A trainer in a child process, `benchmarks.tuning_child`."""

    def __init__(
        self,
        bench: Bench,
        who: str,
        method: str,
        data: str,
        trl: dict[str, Any],
        *,
        steps: int,
        gradients: Path | None = None,
        dtype: str | None = None,
        held_out: int = 0,
        profile: bool = False,
        learning_rate: float | None = None,
    ) -> None:
        spec = {
            "who": who,
            "method": method,
            "data": data,
            "model": bench.model,
            "cache": str(bench.cache),
            "steps": steps,
            "trl": trl,
            "dtype": dtype,
            "gradients": str(gradients) if gradients else None,
            "held_out": held_out,
            "profile": profile,
            "learning_rate": learning_rate,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.tuning_child", json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.made = self._hear()
        self.steps: list[dict[str, Any]] = []
        self._asked_steps = steps

    def step(self) -> float:
        """Take one step; returns its seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.steps.append(self._hear())
        return float(self.steps[-1]["seconds"])

    def all_steps(self) -> dict[str, Any]:
        """Take every step; returns the report after the last one."""
        for _ in range(self._asked_steps):
            self.step()
        return self._hear()

    def tokens_per_second(self) -> float:
        """The tokens a second after the first step; each completion counts its prompt too."""
        tokens = self.steps[-1]["tokens"] - self.steps[0]["tokens"]
        return float(tokens / sum(step["seconds"] for step in self.steps[1:]))

    def peak_bytes(self) -> int:
        """The peak memory in bytes, beyond that of the imports."""
        return int(self.steps[-1]["peak_bytes"] - self.made["imports_bytes"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("event: "):
                return dict(json.loads(line.removeprefix("event: ")))
        raise RuntimeError("the trainer's process ended")


def main() -> None:
    """Run the benchmark and print its document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the document on one line")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each trainer")
    parser.add_argument("--only", nargs="*", default=list(MEASURES), choices=list(MEASURES))
    parser.add_argument("--data", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    arguments = parser.parse_args()
    bench = Bench(
        arguments.model, arguments.model_cache, arguments.steps, arguments.data, arguments.json
    )
    for name in arguments.only:
        MEASURES[name](bench)
    print(json.dumps(bench.document(), indent=None if arguments.json else 2))


def dpo(bench: Bench) -> None:
    """Measure DPO: tokens a second and peak memory."""
    _speed(bench, "dpo", wanted=3.0)


def sft(bench: Bench) -> None:
    """Measure SFT: tokens a second and peak memory."""
    _speed(bench, "sft", wanted=2.0)


def _speed(bench: Bench, method: str, wanted: float) -> None:
    best, tried = _fastest_setting(bench, method)
    for data in bench.data:
        steps = bench.steps + 1
        children = {
            "ours": Child(bench, "ours", method, data, {}, steps=steps),
            "trl": Child(bench, "trl", method, data, best, steps=steps),
        }
        _in_turns(list(children.values()), steps)
        rates = {name: child.tokens_per_second() for name, child in children.items()}
        peaks = {name: child.peak_bytes() for name, child in children.items()}
        made = {name: child.made["made_seconds"] for name, child in children.items()}
        source = children["ours"].made["source"]
        bench.tell(
            f"{method}_{data}_speed",
            f">= {wanted} of trl in its best setting",
            rates["ours"] / rates["trl"],
            met=rates["ours"] >= wanted * rates["trl"],
            tokens_per_second=rates,
            trl=best,
            tried=tried,
            data=source,
            seconds_before_the_first_step=made,
        )
        bench.tell(
            f"{method}_{data}_memory",
            "<= 0.6 of trl in its best setting",
            peaks["ours"] / peaks["trl"],
            met=peaks["ours"] <= 0.6 * peaks["trl"],
            peak_bytes_beyond_imports=peaks,
            trl=best,
        )


def same(bench: Bench) -> None:
    """Compare the first step's loss and gradients with trl's, in fp32."""
    for method in ("dpo", "sft"):
        with tempfile.TemporaryDirectory() as folder:
            files = {who: Path(folder) / who for who in ("ours", "trl")}
            losses = {}
            for who, file in files.items():
                child = Child(
                    bench, who, method, bench.data[0], OFF, steps=1, gradients=file, dtype="float32"
                )
                child.step()
                losses[who] = child.steps[0]["loss"]
                child.close()
            ours, trl = (load_file(file) for file in files.values())
        apart = max(float((ours[n] - trl[n]).norm() / trl[n].norm().clamp(1e-12)) for n in trl)
        loss = abs(losses["ours"] / losses["trl"] - 1)
        worst = max(apart, loss)
        bench.tell(
            f"{method}_same",
            "<= 1e-4 relative",
            worst,
            met=worst <= 1e-4,
            gradients_apart=apart,
            loss_apart=loss,
            losses=losses,
        )


def end(bench: Bench) -> None:
    """Compare the held-out accuracy with trl's after the same pairs in the same order.

    The goal is met if the 95% interval of the paired difference contains 0.
    """
    found = {}
    for who in ("ours", "trl"):
        trl = {**OFF, "per_device_train_batch_size": 1, "gradient_accumulation_steps": BATCH_PAIRS}
        child = Child(
            bench,
            who,
            "dpo",
            bench.data[0],
            trl,
            steps=END_STEPS,
            held_out=END_HELD_OUT,
            learning_rate=END_LEARNING_RATE,
        )
        found[who] = child.all_steps()
        child.close()
    right, names = {who: each["right"] for who, each in found.items()}, found["ours"]["questions"]
    apart = [ours - theirs for ours, theirs in zip(right["ours"], right["trl"], strict=True)]
    difference = clustered_mean(apart, names)
    bench.tell(
        "dpo_same_at_the_end",
        "95% interval of the difference holds 0",
        difference.estimate,
        met=difference.low <= 0 <= difference.high,
        interval=[difference.low, difference.high],
        accuracy={who: fmean(each) for who, each in right.items()},
        before=fmean(found["ours"]["right_before"]),
        pairs=len(apart),
        questions=len(set(names)),
        decided_otherwise=sum(map(bool, apart)),
        changed_by_training={
            who: sum(a != b for a, b in zip(each["right"], each["right_before"], strict=True))
            for who, each in found.items()
        },
    )


def where(bench: Bench) -> None:
    """Profile one of our steps, which takes longer than an unprofiled one."""
    for method in ("dpo", "sft"):
        child = Child(bench, "ours", method, bench.data[0], {}, steps=2, profile=True)
        bench.figures[f"{method}_where"] = child.all_steps()["shares"]
        child.close()


def reference(bench: Bench) -> None:
    """Measure the reference pass of 20 pairs, then of 22 with the first 20 cached."""
    command = [sys.executable, "-m", "benchmarks.tuning_reference", bench.model, str(bench.cache)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    ratio = found["second_seconds"] / found["first_seconds"]
    bench.tell("reference_second_run", "<= 0.15 of the first", ratio, met=ratio <= 0.15, **found)


MEASURES: dict[str, Callable[[Bench], None]] = {
    "same": same,
    "dpo": dpo,
    "sft": sft,
    "end": end,
    "where": where,
    "reference": reference,
}


# Helpers


def _fastest_setting(bench: Bench, method: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Return trl's fastest setting on the first data set, and the tokens a second of each."""
    rates = {}
    for name, setting in TRL_SETTINGS[method].items():
        steps = TRIED_STEPS + 1
        child = Child(bench, "trl", method, bench.data[0], setting, steps=steps)
        _in_turns([child], steps)
        rates[name] = child.tokens_per_second()
        print(f"trl {method}, {name}: {rates[name]:.1f} tokens/s", file=sys.stderr, flush=True)
    return TRL_SETTINGS[method][max(rates, key=lambda name: rates[name])], rates


def _in_turns(children: Sequence[Child], steps: int) -> None:
    for _ in range(steps):
        for child in children:
            child.step()
    for child in children:
        child.close()


def _surroundings(bench: Bench) -> dict[str, Any]:
    return {
        "processor": processor_name(),
        "weights": str(detect().dtype).removeprefix("torch."),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "model": bench.model,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
