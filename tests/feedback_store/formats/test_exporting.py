"""What goes out is what other tools read, and comes back without a loss."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import InvalidInput, StorageFull
from engine.messages import Message, Role, is_blank, messages_from_dicts
from engine.tools import Tool, ToolCall
from feedback_store.examples.types import (
    Demonstration,
    Origin,
    Pair,
    Side,
    TrainingExample,
    Unpaired,
)
from feedback_store.formats import export_examples, import_file
from feedback_store.formats.csv_files import guarded, unguarded
from feedback_store.records import ImportedAnswer, ImportedChoice, ImportedTurn
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import PLAIN
from tests.feedback_store.formats.helpers import chat, openai, sharegpt, turns_of
from tests.feedback_store.helpers import examples_now

ORIGIN = Origin("conversation-1", "sha256:t", (3, 5), ("ann", "bob"))
SPEAKERS: tuple[Role, ...] = ("system", "user", "assistant")
WITH_TOOLS = (
    Message("system", "", tools=(Tool("clock"),)),
    Message("user", "How late?"),
    Message("assistant", "", calls=(ToolCall("c", "clock", "{}"),)),
    Message("tool", "Noon.", call_id="c"),
)
PROMPT = chat("One?", "1", "Two?", system="Count.")


def side(text: str = "2", thought: str = "", complete: bool = True) -> Side:
    return Side(text, thought, complete, "answer-1", "sha256:b", None)


def pair(
    prompt: tuple[Message, ...] = PROMPT, good: Side | None = None, bad: Side | None = None
) -> Pair:
    return Pair("p1", prompt, good or side("2", "One and one."), bad or side("5"), "votes", ORIGIN)


def unpaired(
    label: bool, prompt: tuple[Message, ...] = PROMPT, said: Side | None = None
) -> Unpaired:
    return Unpaired("u1", prompt, said or side("2", "One and one."), label, "vote", ORIGIN)


def demonstration(prompt: tuple[Message, ...] = PROMPT, said: Side | None = None) -> Demonstration:
    return Demonstration("d1", prompt, said or side("2", "One and one."), "vote", ORIGIN)


def rows_of(path: Path) -> Any:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# What other tools read


def test_a_trl_file_holds_the_rows_of_a_snapshot(tmp_path: Path) -> None:
    examples: list[TrainingExample] = [pair(), unpaired(True), demonstration()]
    for example in examples:
        file = tmp_path / f"{type(example).__name__}.jsonl"
        assert export_examples((example, example), file, format="trl") == 2
        assert rows_of(file) == [json.loads(json.dumps(example.as_dict()))] * 2


def test_sharegpt_holds_thought_and_answer_as_the_model_writes_them(tmp_path: Path) -> None:
    export_examples([demonstration()], tmp_path / "out.jsonl", format="sharegpt")
    (row,) = rows_of(tmp_path / "out.jsonl")
    whole = Message("assistant", "One and one.\nAnswer: 2")
    assert row["conversations"] == sharegpt(*PROMPT, whole)


def test_llama_factory_finds_its_files_columns_and_roles(tmp_path: Path) -> None:
    """Read as its data/README.md says: the columns and tags name what stands in the files."""
    examples: list[TrainingExample] = [pair(), unpaired(True), demonstration(), unpaired(False)]
    assert export_examples(examples, tmp_path / "out", format="llama-factory") == 4
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "dataset_info.json",
        *(entry["file_name"] for entry in info.values()),
    }
    read = {name: _as_llama_factory(tmp_path / "out", entry) for name, entry in info.items()}
    answer = Message("assistant", "One and one.\nAnswer: 2")
    assert read == {
        "burnish_preference": [(list(PROMPT), answer, Message("assistant", "5"))],
        "burnish_kto": [([*PROMPT, answer], True), ([*PROMPT, answer], False)],
        "burnish_sft": [([*PROMPT, answer],)],
    }
    assert [name for name, entry in info.items() if entry.get("ranking")] == ["burnish_preference"]


def _as_llama_factory(folder: Path, entry: Any) -> list[Any]:
    assert entry["formatting"] == "sharegpt"
    columns, tags = entry["columns"], entry["tags"]
    roles: dict[str, Role] = {tags[f"{role}_tag"]: role for role in SPEAKERS}

    def message(said: Any) -> Message:
        return Message(roles[said[tags["role_tag"]]], said[tags["content_tag"]])

    records = []
    for row in json.loads((folder / entry["file_name"]).read_text("utf-8")):
        record: list[Any] = [[message(said) for said in row[columns["messages"]]]]
        record += [message(row[columns[key]]) for key in ("chosen", "rejected") if key in columns]
        record += [row[columns["kto_tag"]]] if "kto_tag" in columns else []
        records.append(tuple(record))
    return records


def test_kinds_that_are_not_there_get_no_file(tmp_path: Path) -> None:
    export_examples([demonstration()], tmp_path / "out", format="llama-factory")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"dataset_info.json", "sft.json"}


@pytest.mark.parametrize("start", "=+-@\t\r\n'＝＋－＠")
def test_no_cell_begins_as_a_formula_does(start: str, tmp_path: Path) -> None:
    text = f'{start}HYPERLINK("http://example.org","x")'
    example = pair((Message("user", text),), side(text, text), side(text))
    export_examples([example], tmp_path / "out.csv", format="csv")
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (
        row["question"] == row["chosen"] == row["chosen_thought"] == row["rejected"] == f"'{text}"
    )
    assert not any(cell.startswith(tuple("=+-@\t\r\n＝＋－＠")) for cell in row.values())
    (turn,) = turns_of(tmp_path / "out.csv")
    assert (turn.prompt[0].content, turn.answers[0].text) == (text, text)


def test_a_spreadsheet_that_splits_at_semicolons_finds_no_formula_either(tmp_path: Path) -> None:
    export_examples([unpaired(True, said=side("x;=1+1"))], tmp_path / "out.csv", format="csv")
    assert ',"x;=1+1",' in (tmp_path / "out.csv").read_text("utf-8")


@given(st.text())
def test_taking_the_quote_away_always_gives_the_text_back(text: str) -> None:
    assert unguarded(guarded(text)) == text
    assert not guarded(text).startswith(("=", "+", "-", "@", "\t", "\r"))


def test_a_spreadsheet_sees_utf_8_and_the_question_in_a_column_of_its_own(tmp_path: Path) -> None:
    export_examples([unpaired(False)], tmp_path / "out.csv", format="csv")
    assert (tmp_path / "out.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["question"], row["completion"], row["label"]) == ("Two?", "2", "false")
    assert json.loads(row["context"]) == openai(*PROMPT[:-1])


# What comes back

# All of Unicode but what no text can hold; with what formats could trip over made likely.
TRICKY = st.sampled_from(
    [
        "\n",
        "\r\n",
        "\r",
        '"',
        "'",
        ",",
        ";",
        "=",
        "\t",
        "\u202e",
        "\u200f",
        "\u2028",
        "\x85",
        "\U0001f469\u200d\U0001f680",
        "\ufeff",
        "Answer: ",
        "<think>",
        "{{x}}",
        "<|im_end|>",
        "\n\nHuman: ",
        "\\",
    ]
)
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
TEXTS = st.lists(CHARACTERS | TRICKY, max_size=12).map("".join)
SAID = TEXTS.filter(lambda text: not is_blank(text))
SIDES = st.builds(side, SAID, TEXTS, st.booleans())
# All that the API takes: a question, before it anybody in any order, after it the system again
PROMPTS = st.builds(
    lambda before, question, after: (*before, Message("user", question), *after),
    st.lists(st.builds(Message, st.sampled_from(SPEAKERS), TEXTS), max_size=4).map(tuple),
    SAID,
    st.lists(st.builds(Message, st.just("system"), TEXTS), max_size=2).map(tuple),
)
PAIRS = st.lists(st.builds(pair, PROMPTS, SIDES, SIDES), min_size=1, max_size=3)
UNPAIRED = st.lists(st.builds(unpaired, st.booleans(), PROMPTS, SIDES), min_size=1, max_size=3)
DEMONSTRATIONS = st.lists(st.builds(demonstration, PROMPTS, SIDES), min_size=1, max_size=3)
REUSES_FOLDER = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def said_of(example: TrainingExample) -> list[Any]:
    """What must not be lost: the texts, the thoughts, the flags and the labels."""
    good = [example.chosen] if isinstance(example, Pair) else [example.completion]
    bad = [example.rejected] if isinstance(example, Pair) else []
    up = not isinstance(example, Unpaired) or example.label
    votes = ["better", "worse"] if isinstance(example, Pair) else [1 if up else -1]
    sides = [
        (s.text, s.thought, s.complete, vote) for s, vote in zip([*good, *bad], votes, strict=True)
    ]
    return [example.prompt, example.origin.conversation_id, sides]


def said_in(turn: ImportedTurn) -> list[Any]:
    votes = ["better", "worse"] if turn.choices else [a.votes[0].vote for a in turn.answers]
    sides = [
        (a.text, a.thought, a.complete, vote) for a, vote in zip(turn.answers, votes, strict=True)
    ]
    return [turn.prompt, turn.conversation, sides]


def comes_back(
    examples: Sequence[TrainingExample], target: Path, files: Sequence[str], **how: str
) -> None:
    if target.is_dir():
        for path in target.iterdir():
            path.unlink()
        target.rmdir()
    target.unlink(missing_ok=True)
    export_examples(examples, target, **how)
    turns = [turn for file in files for turn in turns_of(target / file)]
    assert [said_in(turn) for turn in turns] == [said_of(example) for example in examples]


@REUSES_FOLDER
@given(PAIRS | UNPAIRED | DEMONSTRATIONS)
def test_a_trl_file_comes_back(tmp_path: Path, examples: list[TrainingExample]) -> None:
    comes_back(examples, tmp_path / "out", [""], format="trl")


@REUSES_FOLDER
@given(PAIRS | UNPAIRED | DEMONSTRATIONS)
def test_a_csv_file_comes_back(tmp_path: Path, examples: list[TrainingExample]) -> None:
    comes_back(examples, tmp_path / "out", [""], format="csv")


@REUSES_FOLDER
@given(DEMONSTRATIONS)
def test_a_sharegpt_file_comes_back(tmp_path: Path, examples: list[TrainingExample]) -> None:
    comes_back(examples, tmp_path / "out", [""], format="sharegpt")


@settings(REUSES_FOLDER, max_examples=15)  # each example writes four files
@given(PAIRS, UNPAIRED, DEMONSTRATIONS)
def test_a_llama_factory_folder_comes_back(
    tmp_path: Path, pairs: list[Pair], judged: list[Unpaired], shown: list[Demonstration]
) -> None:
    files = ["preference.json", "kto.json", "sft.json"]
    comes_back([*pairs, *judged, *shown], tmp_path / "out", files, format="llama-factory")


# What is not written


def test_an_export_never_overwrites_anything(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("precious", "folder", "link"):
        for how in ("trl", "csv", "sharegpt", "llama-factory"):
            with pytest.raises(InvalidInput, match="exists already"):
                export_examples([demonstration()], tmp_path / name, format=how)
    assert (tmp_path / "precious").read_text() == "text"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("examples", "how", "reason"),
    [
        ([pair(), unpaired(True)], "trl", "one kind of example, not Pair and Unpaired"),
        ([pair(), demonstration()], "csv", "one kind of example, not Demonstration and Pair"),
        ([pair()], "sharegpt", "demonstrations alone"),
        ([demonstration(WITH_TOOLS)], "sharegpt", "sharegpt cannot hold prompts that offer tools"),
        ([pair(WITH_TOOLS)], "llama-factory", "llama-factory cannot hold prompts that offer tools"),
        ([pair()], "tlr", "known formats: csv, llama-factory, sharegpt, trl"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_no_file(
    examples: list[TrainingExample], how: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        export_examples(examples, tmp_path / "out", format=how)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("how", "name"), [("trl", "out.jsonl"), ("csv", "out.csv")])
def test_a_prompt_with_tools_is_written_whole_and_not_learnt_from_a_file(
    how: str, name: str, store: FeedbackStore, tmp_path: Path
) -> None:
    export_examples([demonstration(WITH_TOOLS)], tmp_path / name, format=how)
    assert "clock" in (tmp_path / name).read_text("utf-8")
    if how == "trl":
        (row,) = rows_of(tmp_path / name)
        assert messages_from_dicts(row["prompt"]) == WITH_TOOLS
    with pytest.raises(InvalidInput, match="tools"):
        import_file(store, tmp_path / name)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for how in ("trl", "llama-factory"):
        with pytest.raises(InvalidInput, match="cannot write"):
            export_examples([demonstration()], tmp_path / "file" / "out", format=how)


def test_a_full_disk_leaves_no_half_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.name == "sft.json":
            raise StorageFull("cannot write: No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr("feedback_store.formats.exporting.write_atomically", full)
    with pytest.raises(StorageFull):
        export_examples([pair(), demonstration()], tmp_path / "out", format="llama-factory")
    assert not list(tmp_path.iterdir())


def test_nothing_to_export_is_an_empty_file(tmp_path: Path) -> None:
    assert export_examples([], tmp_path / "out.jsonl", format="trl") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_a_cut_off_side_stays_cut_off_through_export_and_import(
    store: FeedbackStore, training_set: TrainingSet, tmp_path: Path
) -> None:
    answers = ImportedAnswer("Because."), ImportedAnswer("Because it", complete=False)
    choice = ImportedChoice("ann", 0, 1, "left")
    turn = ImportedTurn((Message("user", "Why?"),), answers, (choice,))
    store.add_imported([turn], PLAIN, "ann")
    exported = tmp_path / "pairs.jsonl"
    export_examples(examples_now(training_set).pairs, exported, format="trl")
    exported.write_text(exported.read_text("utf-8").replace("Why?", "How?"), "utf-8")
    import_file(store, exported)
    pairs = examples_now(training_set).pairs
    assert [pair.prompt[-1].content for pair in pairs] == ["Why?", "How?"]
    assert [(p.chosen.complete, p.rejected.complete) for p in pairs] == [(True, False)] * 2
