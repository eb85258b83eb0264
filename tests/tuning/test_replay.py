"""Instruction data beside the snapshot: read as the importer reads it, drawn with the seed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.messages import Message
from tuning.recipe_sections import ReplayRecipe
from tuning.replay import read_replay

DATA = Path(os.environ.get("BURNISH_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))


def written(folder: Path, rows: list[dict[str, Any]]) -> ReplayRecipe:
    file = folder / "more.json"
    file.write_text(json.dumps(rows))
    return ReplayRecipe(str(file), 0.5)


def alpaca(count: int) -> list[dict[str, Any]]:
    return [
        {"instruction": f"Add {n}.", "input": f"{n} + {n}", "output": str(2 * n)}
        for n in range(count)
    ]


def test_an_alpaca_record_is_read_as_import_reads_it(tmp_path: Path) -> None:
    (found,) = read_replay(written(tmp_path, alpaca(1)), beside=1, seed=0)
    assert found.prompt == (Message("user", "Add 0.\n0 + 0"),)
    assert (found.answer.text, found.answer.complete, found.answer.base) == ("0", True, "imported")


@pytest.mark.parametrize(
    ("share", "beside", "drawn"),
    [(0.5, 6, 6), (0.25, 6, 2), (0.1, 9, 1), (0.9, 1, 9), (0.1, 1, 0), (0.5, 0, 0)],
)
def test_so_many_are_drawn_that_they_make_up_the_share(
    share: float, beside: int, drawn: int, tmp_path: Path
) -> None:
    replay = ReplayRecipe(written(tmp_path, alpaca(20)).file, share)
    assert len(read_replay(replay, beside, seed=0)) == drawn


def test_a_short_file_gives_what_it_has(tmp_path: Path) -> None:
    assert len(read_replay(written(tmp_path, alpaca(3)), beside=100, seed=0)) == 3


def test_the_seed_decides_which(tmp_path: Path) -> None:
    replay = written(tmp_path, alpaca(50))
    draws = [read_replay(replay, beside=5, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_answers_that_the_file_calls_bad_are_not_imitated(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Q{n}"}],
            "label": good,
            "completion": [{"role": "assistant", "content": f"A{n}"}],
        }
        for n, good in enumerate((True, False, True))
    ]
    found = read_replay(written(tmp_path, rows), beside=9, seed=0)
    assert sorted(item.answer.text for item in found) == ["A0", "A2"]
    with pytest.raises(InvalidInput, match="no answers that it calls good"):
        read_replay(written(tmp_path, rows[1:2]), beside=9, seed=0)


def test_a_file_that_is_no_data_is_refused_with_its_place(tmp_path: Path) -> None:
    rows = [*alpaca(1), {"instruction": "Add.", "input": "", "output": 3}]
    with pytest.raises(InvalidInput, match=r"more\.json: record 2"):
        read_replay(written(tmp_path, rows), beside=9, seed=0)


def test_without_a_file_nothing_is_replayed() -> None:
    assert read_replay(ReplayRecipe(), beside=9, seed=0) == []


@pytest.mark.parametrize(
    ("name", "answers"),
    [("self_instruct_seed_tasks.jsonl", 175), ("llamafactory_identity.json", 91)],
)
def test_real_instruction_data_can_be_replayed(name: str, answers: int) -> None:
    if not (DATA / name).is_file():
        pytest.skip(f"needs {DATA / name} (set BURNISH_TEST_DATA)")
    found = read_replay(ReplayRecipe(str(DATA / name), 0.5), beside=10_000, seed=0)
    assert len(found) == answers
    assert all(item.prompt[-1].role == "user" and item.answer.text for item in found)
