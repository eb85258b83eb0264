"""The format of a file is found out from its first record, or told."""

from __future__ import annotations

from pathlib import Path

from feedback_store.formats import IMPORT_FORMATS
from tests.feedback_store.formats.helpers import (
    ANSWERED,
    chat,
    lines,
    openai,
    preference,
    preferred,
    problems,
    refusal,
    sharegpt,
    turns_of,
)


def test_a_file_of_no_known_format_is_told_its_keys_and_the_known_ones(tmp_path: Path) -> None:
    reason = refusal(lines(tmp_path / "in", {"frage": 1, "antwort": 2}))
    assert "'frage', 'antwort'" in reason
    assert all(name in reason for name in IMPORT_FORMATS)


def test_a_record_that_fits_two_formats_must_be_told_which_it_is(tmp_path: Path) -> None:
    row = ANSWERED | {"conversations": sharegpt(*chat("Why?", "No."))}
    file = lines(tmp_path / "in", row)
    assert "line 1: fits alpaca and sharegpt" in refusal(file)
    assert turns_of(file, format="alpaca")[0].answers[0].text == "Because."
    assert turns_of(file, format="sharegpt")[0].answers[0].text == "No."


def test_a_conversation_beside_a_preference_is_the_preferred_one_once_more(tmp_path: Path) -> None:
    """As in UltraFeedback."""
    row = preference() | {"messages": openai(*chat("Why?", "Because."))}
    (turn,) = turns_of(lines(tmp_path / "in", row))
    assert preferred(turn) == ("Because.", "No.", "import")


def test_the_first_line_of_another_format_is_named(tmp_path: Path) -> None:
    conversation = {"conversations": sharegpt(*chat("Why?", "Because."))}
    file = lines(tmp_path / "in", preference(), preference(), conversation, preference())
    assert refusal(file) == "line 3: is sharegpt, while the file began as trl-preference"


def test_a_judgement_without_its_label_is_no_demonstration(tmp_path: Path) -> None:
    judged = {"conversations": sharegpt(*chat("Why?", "Because.")), "kto_tag": False}
    praised = {"conversations": sharegpt(*chat("Why?", "Because."))}
    found = refusal(lines(tmp_path / "in", praised, judged))
    assert found == "line 2: is sharegpt-unpaired, while the file began as sharegpt"
    with_neither = {"conversations": sharegpt(*chat("Why?", "Because.")), "chosen": "Because."}
    assert "no known format" in refusal(lines(tmp_path / "in", with_neither))


def test_a_bad_first_line_does_not_hide_the_format(tmp_path: Path) -> None:
    found = problems(lines(tmp_path / "in", "oops", '{"a": 1}', ANSWERED, ANSWERED | {"output": 1}))
    assert [problem.split(":")[0] for problem in found] == ["line 1", "line 2", "line 4"]


def test_unknown_names_are_told_the_known_ones(tmp_path: Path) -> None:
    file = lines(tmp_path / "in", ANSWERED)
    assert "known formats: alpaca, alpaca-preference, " in refusal(file, format="alpacca")
    assert "known: all, adjacent" in refusal(file, ranks="some")
    assert "user is empty" in refusal(file, user=" ")


def test_a_named_format_names_what_a_record_lacks(tmp_path: Path) -> None:
    assert refusal(lines(tmp_path / "in", ANSWERED), format="oasst") == (
        "line 1: missing 'message_tree_id'"
    )
