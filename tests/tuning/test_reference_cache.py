"""What the reference thinks of a row is computed once, and never read from a damaged file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tuning.reference_cache import PairLogProbs, PairRow, ReferenceKey, look_up_references

KEY = ReferenceKey("sha256:base", None, "sha256:template", "float32")


def row(number: int) -> PairRow:
    return {"prompt_ids": [number], "chosen_ids": [1, 2], "rejected_ids": [3]}


class Counter:
    """Makes values up, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, rows: Sequence[PairRow]) -> list[PairLogProbs]:
        self.asked += [row["prompt_ids"][0] for row in rows]
        return [(-row["prompt_ids"][0] / 3, -0.1) for row in rows]


def test_a_second_run_pays_for_the_new_rows_only(tmp_path: Path) -> None:
    first, second = Counter(), Counter()
    before = look_up_references(tmp_path, KEY, [row(1), row(2)], first)
    after = look_up_references(tmp_path, KEY, [row(2), row(3), row(1)], second)
    assert (first.asked, second.asked) == ([1, 2], [3])
    assert (before.cached, after.cached) == (0, 2)
    assert after.log_probs == (before.log_probs[1], (-1.0, -0.1), before.log_probs[0])  # to the bit


def test_the_same_row_twice_is_computed_once(tmp_path: Path) -> None:
    counter = Counter()
    found = look_up_references(tmp_path, KEY, [row(1), row(1)], counter)
    assert counter.asked == [1]
    assert found.log_probs[0] == found.log_probs[1]


@pytest.mark.parametrize("part", ["base", "adapter", "template", "number_format"])
def test_another_reference_shares_nothing(tmp_path: Path, part: str) -> None:
    look_up_references(tmp_path, KEY, [row(1)], Counter())
    counter = Counter()
    look_up_references(tmp_path, replace(KEY, **{part: "other"}), [row(1)], counter)
    assert counter.asked == [1]


@pytest.mark.parametrize("column", ["prompt_ids", "chosen_ids", "rejected_ids"])
def test_a_row_that_differs_anywhere_is_another_row(tmp_path: Path, column: str) -> None:
    look_up_references(tmp_path, KEY, [row(1)], Counter())
    counter = Counter()
    look_up_references(tmp_path, KEY, [{**row(1), column: [7]}], counter)
    assert len(counter.asked) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "no digest"])
def test_a_damaged_file_is_computed_again(tmp_path: Path, damage: str) -> None:
    rows = [row(1), row(2)]
    before = look_up_references(tmp_path, KEY, rows, Counter())
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    place = data.rindex(b"0.3333")
    file.write_bytes(
        {
            "flip": data[:place] + b"9" + data[place + 1 :],
            "cut": data[:-5],
            "empty": b"",
            "no digest": data.split(b"\n", 1)[1],
        }[damage]
    )
    counter = Counter()
    assert look_up_references(tmp_path, KEY, rows, counter).log_probs == before.log_probs
    assert counter.asked == [1, 2]
    again = Counter()
    look_up_references(tmp_path, KEY, rows, again)
    assert again.asked == []


def test_a_row_that_left_the_data_leaves_the_file(tmp_path: Path) -> None:
    look_up_references(tmp_path, KEY, [row(1), row(2)], Counter())
    look_up_references(tmp_path, KEY, [row(2)], Counter())
    counter = Counter()
    look_up_references(tmp_path, KEY, [row(1), row(2)], counter)
    assert counter.asked == [1]


def test_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    look_up_references(tmp_path, KEY, [row(1)], Counter())
    with pytest.raises(RuntimeError):
        look_up_references(tmp_path, KEY, [row(1), row(2)], fail)
    counter = Counter()
    look_up_references(tmp_path, KEY, [row(1)], counter)
    assert counter.asked == []
    assert len(list(tmp_path.iterdir())) == 1


def fail(_: Sequence[PairRow]) -> list[PairLogProbs]:
    raise RuntimeError
