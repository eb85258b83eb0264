"""Thought and answer are told apart in the forms that models write, also while they write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompts.reasoning import Reasoned, join_reasoning, split_reasoning

FINISHED = {
    "a marker line": ("2 and 2.\nAnswer: 4", "2 and 2.", "4"),
    "a bold marker": ("2 and 2.\n\n**Answer:** 4", "2 and 2.", "4"),
    "bold closed before the colon": ("2 and 2.\n**Answer**: 4", "2 and 2.", "4"),
    "a heading": ("2 and 2.\n### Final answer: 4", "2 and 2.", "4"),
    "other case": ("2 and 2.\nfinal ANSWER : 4", "2 and 2.", "4"),
    "a Chinese colon": ("二加二。\nAnswer：四", "二加二。", "四"),
    "an answer of several lines": ("Hm.\nAnswer: 4\n\nThat is all.", "Hm.", "4\n\nThat is all."),
    "the marker alone on its line": ("Hm.\nAnswer:\n4", "Hm.", "4"),
    "the first marker counts": ("Hm.\nAnswer: 4\nAnswer: 5", "Hm.", "4\nAnswer: 5"),
    "no thought before the marker": ("Answer: 4", "", "4"),
    "a marker within a line is none": ("The answer: it is 4.", "", "The answer: it is 4."),
    "no marker": ("It is 4.\n", "", "It is 4."),
    "a think block": ("<think>\n2 and 2.\n</think>\n\n4", "2 and 2.", "4"),
    "a marker within a think block": ("<think>Answer: 5?</think>4", "Answer: 5?", "4"),
    "a think block that never ends": ("<think>2 and", "2 and", ""),
    "an empty think block": ("<think>\n\n</think>\n4", "", "4"),
    "nothing": ("", "", ""),
}


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_text_is_split(name: str) -> None:
    text, thought, answer = FINISHED[name]
    assert split_reasoning(text) == Reasoned(thought, answer)


def test_while_it_grows_a_text_is_thought_until_its_marker_has_come() -> None:
    text = "2 and 2.\nAnswer: 4"
    seen = [split_reasoning(text[:end], finished=False) for end in (3, 8, 12, 16, 17, 18)]
    assert seen == [
        Reasoned("2 a", ""),
        Reasoned("2 and 2.", ""),
        Reasoned("2 and 2.\nAns", ""),
        Reasoned("2 and 2.", ""),
        Reasoned("2 and 2.", ""),
        Reasoned("2 and 2.", "4"),
    ]


def test_while_it_grows_an_open_think_block_is_thought() -> None:
    assert split_reasoning("<think>2 and", finished=False) == Reasoned("2 and", "")
    assert split_reasoning("<think>2 and 2</think>It", finished=False) == Reasoned("2 and 2", "It")


words = st.text(st.sampled_from("abz 你\n.,"), max_size=30).map(str.strip)


@given(thought=words, answer=words)
def test_joining_is_the_inverse_of_splitting(thought: str, answer: str) -> None:
    assert split_reasoning(join_reasoning(thought, answer)) == Reasoned(thought, answer)


def test_what_is_joined_has_the_form_the_instruction_asks_for() -> None:
    assert join_reasoning("2 and 2.", "4") == "2 and 2.\nAnswer: 4"
    assert join_reasoning("", "4") == "4"
