"""Thought and answer are told apart in the forms that models write, also while they write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompts.reasoning import Reasoned, Vote, join_reasoning, majority, split_reasoning

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


VOTES = {
    "the most frequent": (["4", "5", "5"], Vote("5", 2, 3)),
    "a tie goes to the first": (["4", "5", "5", "4"], Vote("4", 2, 4)),
    "one answer": ([" 4. "], Vote("4.", 1, 1)),
    "case, blanks and end punctuation": (["the  Sea.", "The\nsea", "Sky"], Vote("the  Sea.", 2, 3)),
    "ways to write a number": (
        ["It is 1,000.", "it is 1000.0", "It is 10"],
        Vote("It is 1,000.", 2, 3),
    ),
    "leading zeros": (["7", "007", "70", "700"], Vote("7", 2, 4)),
    "minus nought": (["-0.0", "0", "-1"], Vote("-0.0", 2, 3)),
    "the sign counts": (["-5", "5", "5"], Vote("5", 2, 3)),
    "more digits than a float holds": (
        ["12345678901234567890", "12345678901234567891", "12345678901234567891"],
        Vote("12345678901234567891", 2, 3),
    ),
    "only the last number is read so": (["01 of 4", "1 of 4.0", "1 of 4"], Vote("1 of 4.0", 2, 3)),
    "units count": (["$5", "5", "5 euros", "5 Euros!"], Vote("5 euros", 2, 4)),
    "names that end in signs": (["C++", "C", "C#", "c#"], Vote("C#", 2, 4)),
    "no answer is no vote": (["", " ", "4"], Vote("4", 1, 3)),
    "nobody answered": (["", " "], Vote("", 2, 2)),
    "Chinese": (["四。", "四", "五"], Vote("四。", 2, 3)),
}


@pytest.mark.parametrize("name", VOTES)
def test_answers_are_voted_on(name: str) -> None:
    answers, vote = VOTES[name]
    assert majority(answers) == vote


def test_without_answers_there_is_no_vote() -> None:
    with pytest.raises(ValueError, match="no answer"):
        majority([])


@given(st.lists(st.text(max_size=12), min_size=1, max_size=9))
def test_the_winner_is_one_of_the_answers_and_no_other_has_more_votes(answers: list[str]) -> None:
    vote = majority(answers)
    assert vote.text in {answer.strip() for answer in answers}
    assert vote.total == len(answers)
    given_ones = [answer for answer in answers if answer.strip()]
    assert vote.votes >= max(map(given_ones.count, given_ones), default=0)
