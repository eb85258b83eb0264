"""The operator's file of worked examples: read as written, or refused with every problem."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InvalidInput
from engine.prompts.examples import Example, default_examples_text, read_examples


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "examples.yaml"


def test_examples_are_read_in_their_order_with_white_space_around_them_removed(file: Path) -> None:
    file.write_text(
        "- {question: One, thought: Count., answer: '1'}\n"
        "- question: 二？\n  thought: |\n    Count\n    twice.\n  answer: 'Two: {2}'\n",
        "utf-8",
    )
    assert read_examples(file) == (
        Example(question="One", thought="Count.", answer="1"),
        Example(question="二？", thought="Count\ntwice.", answer="Two: {2}"),
    )


def test_every_problem_of_a_bad_file_is_listed(file: Path) -> None:
    file.write_text(
        "- {question: One, thought: Count.}\n"
        "- {question: One, thought: Count., answer: 1}\n"
        "- {question: '  ', thought: 'Count.', answer: '1'}\n"
        "- just text\n"
        "- {question: One, thought: Count., answer: '1', note: x}\n"
        '- {question: One, thought: "a\\0b", answer: "1"}\n'
    )
    with pytest.raises(InvalidInput) as raised:
        read_examples(file)
    assert str(raised.value) == (
        "examples.yaml: "
        "example 1 must have exactly question, thought and answer; "
        "example 2: answer must be text; "
        "example 3: the question is empty; "
        "example 4 must have exactly question, thought and answer; "
        "example 5 must have exactly question, thought and answer; "
        "example 6: the thought contains a NUL character"
    )


@pytest.mark.parametrize("text", ["", "[]", "question: x", "just text"])
def test_a_file_that_is_no_list_of_examples_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidInput, match=r"examples\.yaml: expected a list of examples"):
        read_examples(file)


@pytest.mark.parametrize("content", [b"- {", b"\xff\xfe\xff", b"!!python/object/apply:os.abort []"])
def test_a_file_that_cannot_be_read_is_refused_and_runs_nothing(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match="cannot read the examples"):
        read_examples(file)


def test_a_missing_file_is_refused_by_name(file: Path) -> None:
    with pytest.raises(InvalidInput, match=r"examples\.yaml"):
        read_examples(file)


def test_the_examples_a_new_home_starts_with_can_be_read(file: Path) -> None:
    file.write_text(default_examples_text(), "utf-8")
    examples = read_examples(file)
    assert len(examples) >= 3
    assert examples[0].answer == "The ride takes 1 hour and 25 minutes."
