"""Pairs come in from files and go out again; a file with a fault in it changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from feedback_store.formats import export_preferences, import_preferences
from feedback_store.pairing import build_pairs
from feedback_store.store import FeedbackStore

DATA = Path(
    os.environ.get("BURNISH_TEST_DATA", Path(__file__).parents[2].joinpath("../shared/data"))
)
DPO_DEMO = DATA / "llamafactory_dpo_en_demo.json"
TRL_KEYS = ("prompt", "chosen", "rejected")


def line(question: str = "Why?", chosen: str = "Because.", rejected: str = "No.") -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def write(path: Path, *rows: Any) -> Path:
    """Rows as JSON lines; a row that is text is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines), "utf-8")
    return path


def exported(store: FeedbackStore, path: Path) -> list[dict[str, Any]]:
    """What the store exports, in TRL's keys alone."""
    export_preferences(build_pairs(store.evidence()).pairs, path)
    rows = [json.loads(text) for text in path.read_bytes().splitlines()]
    return [{key: row[key] for key in TRL_KEYS} for row in rows]


def by_question(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: json.dumps(row["prompt"]))


def test_what_was_imported_is_exported_again(store: FeedbackStore, tmp_path: Path) -> None:
    several_turns = line("And 好?", "Yes\n<|im_end|>", "No {x}")
    several_turns["prompt"] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "First."},
        {"role": "assistant", "content": "Second."},
        *several_turns["prompt"],
    ]
    rows = [line("One?"), line("Two?"), several_turns]
    assert import_preferences(store, write(tmp_path / "in.jsonl", *rows)) == 3
    assert by_question(exported(store, tmp_path / "out.jsonl")) == by_question(rows)


def test_an_export_that_is_imported_again_adds_no_pairs(
    store: FeedbackStore, tmp_path: Path
) -> None:
    import_preferences(store, write(tmp_path / "in.jsonl", line("One?"), line("Two?")))
    rows = exported(store, tmp_path / "out.jsonl")
    assert import_preferences(store, tmp_path / "out.jsonl") == 2
    assert by_question(exported(store, tmp_path / "again.jsonl")) == by_question(rows)
    assert build_pairs(store.evidence()).set_aside["duplicate"] == 2


def test_blank_lines_are_no_pairs(store: FeedbackStore, tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", "", line("One?"), "  ", line("Two?"), "")
    assert import_preferences(store, file) == 2


def test_pairs_of_one_prompt_share_a_conversation(store: FeedbackStore, tmp_path: Path) -> None:
    """So that the same question is never both trained on and held out."""
    rows = [line("Same?", "A."), line("Same?", "B."), line("Other?")]
    import_preferences(store, write(tmp_path / "in.jsonl", *rows))
    conversations = {
        pair.chosen: pair.conversation_id for pair in build_pairs(store.evidence()).pairs
    }
    assert conversations["A."] == conversations["B."] != conversations["Because."]


def test_every_problem_is_named_with_its_line_and_nothing_is_imported(
    store: FeedbackStore, tmp_path: Path
) -> None:
    without_rejected = line()
    del without_rejected["rejected"]
    robot = line() | {"prompt": [{"role": "robot", "content": "Beep."}]}
    unasked = line() | {"prompt": [{"role": "assistant", "content": "Hello."}]}
    two_answers = line() | {"chosen": line()["chosen"] * 2}
    file = write(
        tmp_path / "in.jsonl",
        line("fine"),
        "{not json",
        without_rejected,
        robot,
        unasked,
        two_answers,
        line(chosen=" "),
        line(question="NUL \x00"),
        "[]",
        line("fine too"),
    )
    with pytest.raises(InvalidInput) as refused:
        import_preferences(store, file)
    reasons = str(refused.value).removeprefix("in.jsonl: ").split("; line ")
    assert [reason.removeprefix("line ").split(":")[0] for reason in reasons] == list("23456789")
    for reason, word in zip(
        reasons[1:],
        ("missing 'rejected'", "'robot'", "end with a user", "one assistant", "empty", "NUL"),
        strict=False,
    ):
        assert word in reason
    assert store.counts()["turns"] == 0


def test_a_long_list_of_problems_is_cut_and_counted(store: FeedbackStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"line 20: .*; and 30 more$"):
        import_preferences(store, write(tmp_path / "in.jsonl", *["{}"] * 50))


def test_a_file_that_is_not_text_is_refused(store: FeedbackStore, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"\xff\xfe\x00")
    for name in ("in.jsonl", "missing.jsonl"):
        with pytest.raises(InvalidInput, match=f"cannot read .*{name}"):
            import_preferences(store, tmp_path / name)


def test_an_export_never_overwrites_a_file(store: FeedbackStore, tmp_path: Path) -> None:
    import_preferences(store, write(tmp_path / "in.jsonl", line()))
    precious = write(tmp_path / "precious", "text")
    with pytest.raises(InvalidInput, match="exists already"):
        export_preferences(build_pairs(store.evidence()).pairs, precious)
    assert precious.read_text() == "text"


@pytest.mark.skipif(not DPO_DEMO.is_file(), reason=f"needs {DPO_DEMO} (set BURNISH_TEST_DATA)")
def test_three_hundred_pairs_that_people_really_have_are_imported(
    store: FeedbackStore, tmp_path: Path
) -> None:
    roles = {"human": "user", "gpt": "assistant", "system": "system"}

    def message(said: dict[str, str]) -> dict[str, str]:
        return {"role": roles[said["from"]], "content": said["value"]}

    rows = [
        {
            "prompt": [message(said) for said in record["conversations"]],
            "chosen": [message(record["chosen"])],
            "rejected": [message(record["rejected"])],
        }
        for record in json.loads(DPO_DEMO.read_text("utf-8"))
    ]
    assert import_preferences(store, write(tmp_path / "in.jsonl", *rows)) == 300
    evidence = list(store.evidence())
    assert len(evidence) == 300
    prompts = {json.dumps(row["prompt"]) for row in rows}
    assert len({e.turn.conversation_id for e in evidence}) == len(prompts) == 295
    pairing = build_pairs(evidence)  # five records are in the file twice
    assert (len(pairing.pairs), +pairing.set_aside) == (295, {"duplicate": 5})
    given = {json.dumps(row, sort_keys=True) for row in rows}
    found = {json.dumps(row, sort_keys=True) for row in exported(store, tmp_path / "out.jsonl")}
    assert found == given
