"""A job computes in the format that is faster here, and goes on in the one it began with."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from tuning import number_format
from tuning.number_format import choose_number_format, faster_format, time_formats

SHAPE = {"hidden_size": 64, "mlp_size": 128}


def test_the_faster_format_is_taken_and_fp32_when_they_are_even() -> None:
    assert faster_format({"fp32": 2.0, "bf16": 1.0}).number_format == "bf16"
    assert faster_format({"fp32": 1.0, "bf16": 2.0}).number_format == "fp32"
    assert faster_format({"fp32": 1.0, "bf16": 1.0}).number_format == "fp32"
    assert faster_format({"fp32": 1.0, "bf16": 0.9}).number_format == "fp32"  # that may be noise
    assert (
        faster_format({"fp32": 0.002, "bf16": 0.001}).reason
        == "measured: fp32 2.00 ms, bf16 1.00 ms"
    )


def test_the_choice_follows_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for number, seconds in enumerate(({"fp32": 2.0, "bf16": 1.0}, {"fp32": 1.0, "bf16": 2.0})):
        monkeypatch.setattr(number_format, "time_formats", lambda *_, found=seconds: found)
        folder = tmp_path / str(number)
        folder.mkdir()
        chosen = choose_number_format("auto", folder, **SHAPE)
        assert chosen.dtype == (torch.bfloat16, torch.float32)[number]
        assert chosen.seconds == seconds


def test_a_recipe_that_names_a_format_gets_it_without_a_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_measurement(*_: object) -> dict[str, float]:
        raise AssertionError("measured")

    monkeypatch.setattr(number_format, "time_formats", no_measurement)
    chosen = choose_number_format("bf16", tmp_path, **SHAPE)
    assert (chosen.number_format, chosen.reason) == ("bf16", "asked for by the recipe")


def test_a_resumed_job_takes_the_format_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the machine is another, or busy, and would now measure otherwise."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(number_format, "time_formats", lambda *_: {"fp32": 2.0, "bf16": 1.0})
    began = choose_number_format("auto", tmp_path, **SHAPE)
    monkeypatch.setattr(number_format, "time_formats", lambda *_: {"fp32": 1.0, "bf16": 2.0})
    assert choose_number_format("auto", tmp_path, **SHAPE) == began
    assert began.number_format == "bf16"


def test_each_format_is_timed_alone() -> None:
    """A clock that says how often it was asked: a product takes 1, whatever it is."""
    asked = 0

    def clock() -> float:
        nonlocal asked
        asked += 1
        return float(asked)

    assert time_formats(**SHAPE, clock=clock) == {"fp32": 1.0, "bf16": 1.0}
    assert asked == 1 + 2 * 2 + 1  # begun; one turn of two formats; the look at the end


def test_measuring_takes_a_moment_for_a_large_model_too() -> None:
    begun = time.monotonic()
    assert time_formats(4096, 14336).keys() == {"fp32", "bf16"}
    assert time.monotonic() - begun < 10  # 0.2 s and a turn's rest, on a machine that is swamped
