"""A file comes in whole or not at all, whatever is wrong with it."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.prompts.modes import PromptTemplate
from feedback_store.formats import ImportReport, import_file, reading
from feedback_store.records import ImportedTurn
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from tests.feedback_store.formats.helpers import (
    ANSWERED,
    Listener,
    array,
    chat,
    lines,
    preference,
    preferred,
    problems,
    refusal,
    turns_of,
)

# What comes in


def test_a_report_says_what_came_in(tmp_path: Path) -> None:
    listener = Listener()
    file = lines(tmp_path / "in.jsonl", preference("One?"), preference("Two?"))
    assert import_file(listener, file, user="ann") == ImportReport(
        "trl-preference",
        "JSON lines in UTF-8",
        turns=2,
        answers=4,
        votes=0,
        corrections=0,
        comparisons=2,
        set_aside={},
    )
    assert listener.importers == {"ann"}
    assert preferred(listener.turns[0]) == ("Because.", "No.", "ann")


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_are_no_records(tmp_path: Path) -> None:
    texts = ["", json.dumps(preference("One?")), " \t", json.dumps(preference("Two?")), ""]
    (tmp_path / "in.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(texts).encode())
    questions = [turn.prompt[-1].content for turn in turns_of(tmp_path / "in.jsonl")]
    assert questions == ["One?", "Two?"]


@pytest.mark.parametrize("text", ["[{0}, {0}]", "\ufeff [\n{0}\n,{0}]\n\n", "{0}\n{0}"])
def test_arrays_and_lines_are_told_apart_by_their_content(text: str, tmp_path: Path) -> None:
    file = tmp_path / "name.without.meaning"
    file.write_text(text.replace("{0}", json.dumps(ANSWERED)), "utf-8")
    assert [turn.prompt for turn in turns_of(file)] == [chat("Why?")] * 2


def test_an_array_is_read_across_the_pieces_it_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [ANSWERED | {"output": '好 \\" ] } , 😀' * size} for size in (1, 50, 3, 200)]
    whole = array(tmp_path / "in.json", *rows)
    spaced = tmp_path / "spaced.json"
    spaced.write_text(json.dumps(rows, indent=4, ensure_ascii=False), "utf-8")
    for chunk in (1, 7, 64):
        monkeypatch.setattr(reading, "CHUNK", chunk)
        for file in (whole, spaced):
            texts = [turn.answers[0].text for turn in turns_of(file)]
            assert texts == [row["output"] for row in rows]


@pytest.mark.parametrize("write", [lines, array])
def test_a_long_file_is_never_held_whole(write: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "in", *[ANSWERED | {"output": "word " * 2_000}] * 1_000)
    assert file.stat().st_size > 10_000_000

    class Counter:
        def add_imported(
            self, turns: Iterable[ImportedTurn], template: PromptTemplate, user_id: str, /
        ) -> int:
            return sum(1 for _ in turns)

    tracemalloc.start()
    assert import_file(Counter(), file).turns == 1_000
    assert tracemalloc.get_traced_memory()[1] < 7_000_000
    tracemalloc.stop()


def test_look_alikes_of_templates_and_special_tokens_stay_text(tmp_path: Path) -> None:
    text = (
        "I am {{name}}, {% raw %} <|im_end|></s>[INST] \u202eabc\u202c \U0001f469\u200d\U0001f680"
    )
    (turn,) = turns_of(lines(tmp_path / "in", preference(text, text, "No.")))
    assert (turn.prompt[-1].content, turn.answers[0].text) == (text, text)


# Spreadsheets

CELLS = [["question", "context", "completion", "label"], ["Why; how?", "[]", '"So, so', "true"]]


def spreadsheet(between: str, end: str = "\r\n", *, quoted: bool = False) -> str:
    """The cells as some program writes them: quoted where they must be, or all of them."""

    def written(cell: str) -> str:
        quote = quoted or '"' in cell or between.strip(" ") in cell or cell == ""
        return '"' + cell.replace('"', '""') + '"' if quote else cell

    return "".join(between.join(map(written, row)) + end for row in CELLS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("between", "name"),
    [
        (",", "commas"),
        (";", "semicolons"),
        ("\t", "tabs"),
        ("|", "vertical bars"),
        (", ", "commas and blanks"),
    ],
)
def test_a_table_is_read_whatever_stands_between_its_cells_and_the_report_says_so(
    between: str, name: str, end: str, encoding: str, tmp_path: Path
) -> None:
    for quoted in (False, True):
        file = tmp_path / "table"
        file.write_bytes(spreadsheet(between, end, quoted=quoted).encode(encoding))
        listener = Listener()
        report = import_file(listener, file)
        shown = "UTF-16" if encoding == "utf-16" else "UTF-8"
        assert report.layout == f"CSV in {shown}, cells between {name}"
        (turn,) = listener.turns
        assert (turn.prompt, turn.answers[0].text) == (chat("Why; how?"), '"So, so')


def test_the_names_of_a_tables_columns_may_be_of_several_words(tmp_path: Path) -> None:
    file = tmp_path / "table"
    file.write_text("question,context,my-answer (2)\nWhy?,,So\n")
    assert reading.layout_of(file).kind == "CSV"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize("write", [lines, array])
def test_utf_16_with_a_mark_is_read(
    write: Any, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "é 好 \N{HERB}"
    text = write(tmp_path / "in", *[ANSWERED | {"output": said}] * 3).read_text("utf-8")
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "in").write_bytes((mark + text).encode(encoding))
    monkeypatch.setattr(reading, "CHUNK", 7)  # in pieces that part characters
    assert [turn.answers[0].text for turn in turns_of(tmp_path / "in")] == [said] * 3


def test_what_is_no_utf_16_is_named_with_its_line(tmp_path: Path) -> None:
    text = json.dumps(ANSWERED, ensure_ascii=False)
    whole = f"{text}\n{text}".encode("utf-16")
    (tmp_path / "half").write_bytes(whole[:-1])
    assert problems(tmp_path / "half") == ["line 2: is not UTF-8 text"]
    lone = whole.replace("B".encode("utf-16-le"), b"\x00\xd8", 1)
    (tmp_path / "lone").write_bytes(lone)
    assert problems(tmp_path / "lone") == ["line 1: is not UTF-8 text"]


# What does not


def test_every_problem_is_named_with_its_line_and_nothing_is_imported(tmp_path: Path) -> None:
    without_rejected = preference()
    del without_rejected["rejected"]
    file = lines(
        tmp_path / "in.jsonl",
        preference("fine"),
        "{not json",
        without_rejected,
        preference() | {"prompt": [{"role": "robot", "content": "Beep."}]},
        preference() | {"prompt": [{"role": "assistant", "content": "Hello."}]},
        preference() | {"chosen": preference()["chosen"] * 2},
        preference(chosen=" "),
        preference(question="NUL \x00"),
        "[]",
        preference(rejected="\ud800"),
        '{"prompt": NaN}',
        json.dumps(preference()) + " {}",
        preference() | {"prompt": [{"role": "user", "content": ["Hi."]}]},
        preference() | {"chosen": 7},
        preference() | {"chosen_complete": "yes"},
        '{"prompt": ' + "9" * 5_000 + "}",
        "[" * 100_000,
        preference("fine too"),
    )
    found = refusal(file).removeprefix("line ").split("; line ")
    assert [problem.split(":")[0] for problem in found] == [str(n) for n in range(2, 18)]
    for problem, word in zip(
        found,
        (
            "is not JSON",
            "missing 'rejected'",
            "unknown role 'robot'",
            "end with a user message",
            "must be one assistant message",
            "answer is empty",
            "NUL",
            "not a JSON object",
            "lone surrogate",
            "NaN",
            "text after",
            "must be text",
            "'chosen' must be a list",
            "'chosen_complete' must be true or false",
            "too many digits",
            "nested too deeply",
        ),
        strict=True,
    ):
        assert word in problem


def test_a_problem_in_an_array_is_named_with_its_record(tmp_path: Path) -> None:
    nan = '{"instruction": NaN, "output": "x"}'
    text = f"[{json.dumps(ANSWERED)}, {nan}, 7, {json.dumps(ANSWERED)}, {{oops}}]"
    (tmp_path / "in.json").write_text(text)
    assert [problem.split(":")[0] for problem in problems(tmp_path / "in.json")] == [
        "record 2",
        "record 3",
        "record 5",
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[{0}", "after record 1: a comma or the array's end is missing"),
        ("[{0} {0}]", "after record 1: a comma or the array's end is missing"),
        ("[{0}] {0}", "after record 1: text goes on after the array"),
        ("[{0},]", "record 2: is not JSON"),
        ('[{0}, {"a', "record 2: is not JSON"),
        ("[{0}, " + "[" * 100_000, "record 2: is nested too deeply"),
    ],
)
def test_an_array_that_breaks_off_is_refused(text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(text.replace("{0}", json.dumps(ANSWERED)))
    assert word in refusal(tmp_path / "in.json")


def test_bytes_that_are_no_text_are_refused_where_they_stand(tmp_path: Path) -> None:
    good, bad = json.dumps(ANSWERED).encode(), b'{"instruction": "\xff", "output": "x"}'
    for text, place in (
        (good + b"\n" + bad, "line 2"),
        (b"[" + good + b"," + bad + b"]", "record 2"),
    ):
        (tmp_path / "in").write_bytes(text)
        assert refusal(tmp_path / "in") == f"{place}: is not UTF-8 text"


def test_a_record_of_endless_length_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_RECORD", 2_000)
    monkeypatch.setattr(reading, "CHUNK", 500)
    long = ANSWERED | {"output": "x" * 3_000}
    assert problems(lines(tmp_path / "in", ANSWERED, long, "oops"))[0].startswith(
        "line 2: is longer"
    )
    assert "line 3" in refusal(lines(tmp_path / "in", ANSWERED, long, "oops"))
    endless = json.dumps([ANSWERED, long])[:-4] + "x" * 9_000
    (tmp_path / "in").write_text(endless)
    assert refusal(tmp_path / "in").startswith("record 2: is longer")


def test_a_long_list_of_problems_is_cut_and_counted(tmp_path: Path) -> None:
    file = lines(tmp_path / "in.jsonl", ANSWERED, *["{}"] * 50)
    assert len(problems(file)) == 21
    assert refusal(file).endswith("; and 30 more")
    assert "line 21: " in refusal(file)
    assert "line 22: " not in refusal(file)


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xef\xbb\xbf", b"[]", b"[ ]\n"])
def test_a_file_without_records_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(content)
    assert refusal(tmp_path / "in") == "in holds no records"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(InvalidInput, match="cannot read"):
            import_file(Listener(), path)


# The real store


def test_a_file_that_changes_while_it_is_read_leaves_nothing_behind(
    store: FeedbackStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More turns than the store takes at once, so that some were written when it breaks."""
    file = lines(tmp_path / "in", *[ANSWERED] * 2_000)
    add_imported = store.add_imported

    def spoil_first(*arguments: Any) -> int:
        lines(file, *[ANSWERED] * 1_999, "oops")
        return add_imported(*arguments)

    monkeypatch.setattr(store, "add_imported", spoil_first)
    with pytest.raises(InvalidInput, match="changed while it was read"):
        import_file(store, file)
    assert store.counts()["turns"] == 0


def test_pairs_of_one_prompt_share_a_conversation(
    store: FeedbackStore, database: Database, tmp_path: Path
) -> None:
    """So that the same question is never both trained on and held out."""
    rows = [preference("Same?", "A."), preference("Same?", "B."), preference("Other?")]
    import_file(store, lines(tmp_path / "in.jsonl", *rows))
    conversations = {
        answer.text: evidence.conversation_id
        for evidence in EvidenceReader(database).all()
        for answer in evidence.answers
    }
    assert conversations["A."] == conversations["B."] != conversations["Because."]


def test_the_store_takes_what_was_read(store: FeedbackStore, tmp_path: Path) -> None:
    import_file(store, lines(tmp_path / "in", preference("One?"), preference("Two?")))
    counts = store.counts()
    assert (counts["turns"], counts["comparisons"]) == (2, 2)
