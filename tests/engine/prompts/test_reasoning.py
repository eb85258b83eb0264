"""Thought and answer are told apart in the forms that models write, also while they write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.messages import Message
from engine.prompts.reasoning import (
    MajorityVote,
    Reasoned,
    after_opening,
    join_reasoning,
    majority,
    opening_of,
    split_reasoning,
    untagged,
    with_opening,
    without_thoughts,
)

ASKED_FOR_AN_ANSWER_LINE = {
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
    "a marker after an empty think block": ("<think>\n</think>\nHm.\nAnswer: 4", "Hm.", "4"),
    "nothing": ("", "", ""),
}
THINK_BLOCKS = {
    "a think block": ("<think>\n2 and 2.\n</think>\n\n4", "2 and 2.", "4"),
    "on one line": ("<think>2 and 2.</think>4", "2 and 2.", "4"),
    "after blank lines": ("\n\n<think>2 and 2.</think>4", "2 and 2.", "4"),
    "an answer that ends in blanks": ("<think>Hm.</think>\n4 \n", "Hm.", "4 \n"),
    "a marker within": ("<think>Answer: 5?</think>4", "Answer: 5?", "4"),
    "a marker after it": ("<think>Hm.</think>So:\nAnswer: 4", "Hm.", "So:\nAnswer: 4"),
    "one that never ends": ("<think>2 and", "2 and", ""),
    "one that ends with half a tag": ("<think>2 and </thi", "2 and </thi", ""),
    "an empty one": ("<think>\n\n</think>\n\n4", "", "4"),
    "two": ("<think>One.</think>\n<think>Two.</think>\n4", "One.\n\nTwo.", "4"),
    "an empty one and another": ("<think>\n</think>\n\n<think>Two.</think>4", "Two.", "4"),
    "one more in the answer": ("<think>A.</think>4 <think>B.</think>", "A.", "4 <think>B.</think>"),
    "an opening tag in the thought": ("<think>A <think>?</think>Yes.", "A <think>?", "Yes."),
    "a second end in the answer": ("<think>A.</think>Write </think>.", "A.", "Write </think>."),
}
NO_THOUGHT = {
    "prose": "It is 4.\n",
    "a line that reads like a marker": "Two questions.\nAnswer: 4",
    "a tag in prose": "R1 writes <think> and </think> around it.",
    "a block in prose": "So: <think>Hm.</think> 4",
    "a tag in code": "`<think>` opens it.",
    "a block in a code fence": "```xml\n<think>\nHm.\n</think>\n```\n",
    "half a tag": "<thin",
    "another tag": "<thinking>Hm.</thinking> 4",
    "an end tag alone": "Close it with\n</think>\n",
    "blanks": " \n",
    "nothing": "",
}


@pytest.mark.parametrize("name", ASKED_FOR_AN_ANSWER_LINE)
def test_what_stands_before_an_answer_line_that_was_asked_for_is_thought(name: str) -> None:
    text, thought, answer = ASKED_FOR_AN_ANSWER_LINE[name]
    assert split_reasoning(text, answer_line=True) == Reasoned(thought, answer)


@pytest.mark.parametrize("answer_line", [False, True])
@pytest.mark.parametrize("name", THINK_BLOCKS)
def test_think_blocks_at_the_beginning_are_thought_whatever_was_asked_for(
    name: str, answer_line: bool
) -> None:
    text, thought, answer = THINK_BLOCKS[name]
    said = split_reasoning(text, answer_line=answer_line and bool(thought))
    assert said == Reasoned(thought, answer, in_block=bool(thought))


@pytest.mark.parametrize("name", NO_THOUGHT)
def test_any_other_text_is_answer_to_the_letter(name: str) -> None:
    assert split_reasoning(NO_THOUGHT[name]) == Reasoned("", NO_THOUGHT[name])


# While it grows


def test_while_it_grows_a_text_is_thought_until_its_marker_has_come() -> None:
    text = "2 and 2.\nAnswer: 4"
    seen = [
        split_reasoning(text[:end], finished=False, answer_line=True)
        for end in (3, 8, 12, 16, 17, 18)
    ]
    assert seen == [
        Reasoned("2 a", ""),
        Reasoned("2 and 2.", ""),
        Reasoned("2 and 2.\nAns", ""),
        Reasoned("2 and 2.", ""),
        Reasoned("2 and 2.", ""),
        Reasoned("2 and 2.", "4"),
    ]


def test_while_it_grows_what_may_become_a_tag_is_not_shown() -> None:
    text = "<think>Hm </b></think>\n\nIt is <b>"
    seen = [split_reasoning(text[:end], finished=False) for end in range(len(text) + 1)]
    assert [said.thought for said in seen] == (
        [""] * 8 + ["H", "Hm", "Hm", "Hm", "Hm", "Hm </b", *["Hm </b>"] * (len(text) - 13)]
    )
    answer = "It is <b>"
    before = len(text) - len(answer) + 1
    assert [said.answer for said in seen] == (
        [""] * before + [answer[: end + 1] for end in range(len(answer))]
    )


PIECES = st.sampled_from(
    ["<think>", "</think>", "<", "</", "<thin", "k>", "\n", " ", "Hm.", "It is 4.", "`", "你"]
)
WRITTEN = st.lists(PIECES, max_size=12).map("".join)


@given(WRITTEN)
def test_what_is_shown_while_a_text_grows_is_never_taken_back(text: str) -> None:
    whole = split_reasoning(text)
    for end in range(len(text) + 1):
        part = split_reasoning(text[:end], finished=False)
        assert whole.thought.startswith(part.thought)
        assert whole.answer.startswith(part.answer)


@given(WRITTEN)
def test_no_word_is_lost(text: str) -> None:
    said = split_reasoning(text)
    kept = said.thought + said.answer
    lost = text.replace("<think>", "").replace("</think>", "")
    assert "".join(kept.replace("<think>", "").replace("</think>", "").split()) == "".join(
        lost.split()
    )


# Together again

words = st.text(st.sampled_from("abz 你\n.,"), max_size=30).map(str.strip)


@given(thought=words, answer=words)
def test_joining_is_the_inverse_of_splitting(thought: str, answer: str) -> None:
    before_a_line = split_reasoning(join_reasoning(thought, answer), answer_line=True)
    assert before_a_line == Reasoned(thought, answer)
    in_a_block = Reasoned(thought, answer, in_block=bool(thought))
    assert split_reasoning(join_reasoning(in_a_block.stored_thought, answer)) == in_a_block
    assert untagged(in_a_block.stored_thought) == thought


def test_what_is_joined_has_the_form_it_was_written_in() -> None:
    assert join_reasoning("2 and 2.", "4") == "2 and 2.\nAnswer: 4"
    assert join_reasoning("<think>\n2 and 2.\n</think>", "4") == (
        "<think>\n2 and 2.\n</think>\n\n4"
    )
    assert join_reasoning("", "4") == "4"


def test_a_conversation_is_shown_again_without_its_thoughts() -> None:
    """A person's words are never cut, and no answer is left without a word."""
    asked = Message("user", "<think>What</think> is this?")
    shown = without_thoughts(
        [
            asked,
            Message("assistant", "<think>Hm.</think>\n\nA tag."),
            asked,
            Message("assistant", "Hm.\n</think>\n\nA tag."),
            asked,
            Message("assistant", "<think>Hm."),
        ]
    )
    said = [message.content for message in shown]
    assert said == [asked.content, "A tag.", asked.content, "A tag.", asked.content, "<think>Hm."]


# Answers that go on from given words

GOES_ON = {
    "words": ("The ", "<b>sea</b> ", "", "<b>sea</b> "),
    "a tag's beginning": ("<", "note>hi", "", "note>hi"),
    "more of it": ("<th", "e>", "", "e>"),
    "a blank": (" ", "\nhi", "", "\nhi"),
    "an answer's words again": ("a", "aa", "", "aa"),
    "a tag that it completes": ("<th", "ink>Hm.</think>4", "Hm.", "4"),
    "a blank before a block": ("\n", "<think>Hm.</think>4", "Hm.", "4"),
    "an opened block": ("<think>\n", "Hm.\n</think>\n\n4", "Hm.", "4"),
    "a begun thought": ("<think>a ", "b</think>4", "b", "4"),
    "a thought with the beginning of a tag": ("<think>a<", " 3", " 3", ""),
    "a closing tag that it completes": ("<think>a</th", "ink>4", "", "4"),
    "a closed block": ("<think>a</think>", "\n\n4", "", "4"),
    "a closed block before another": ("<think>a</think>", "<think>b</think>4", "b", "4"),
    "a begun answer": ("<think>a</think>\n\n4", " 4", "", " 4"),
}


@pytest.mark.parametrize(("given", "text", "thought", "answer"), GOES_ON.values(), ids=GOES_ON)
def test_of_an_answer_that_goes_on_only_what_follows_is_returned(
    given: str, text: str, thought: str, answer: str
) -> None:
    said = split_reasoning(given + text, given=len(given))
    assert (said.thought, said.answer) == (thought, answer)


SNIPPETS = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "<th", "a", " ", "\n"]), max_size=6
)


@given(SNIPPETS.map("".join), SNIPPETS.map("".join))
def test_what_goes_on_repeats_nothing_of_what_was_given(before: str, text: str) -> None:
    """The model's own words are told from the given ones by their letters."""
    after = text.replace("a", "b")
    whole = split_reasoning(before + after)
    said = split_reasoning(before + after, given=len(before))
    assert not set("a") & set(said.thought + said.answer)
    for mine, all_of_it in ((said.thought, whole.thought), (said.answer, whole.answer)):
        assert mine.count("b") == all_of_it.count("b")
        assert "".join(mine.split()) in "".join(all_of_it.split())
    if not (before + after).lstrip().startswith("<think>"):
        assert said == Reasoned("", after)
    shown = [
        split_reasoning(before + after[:end], finished=False, given=len(before))
        for end in range(len(after) + 1)
    ]
    for earlier, later in zip(shown, [*shown[1:], said], strict=True):
        assert later.answer.startswith(earlier.answer)


# Prompts that open the block themselves


@pytest.mark.parametrize(
    ("prompt", "opening"),
    [
        ("<｜Assistant｜><think>\n", "<think>\n"),  # DeepSeek-R1's distillates
        ("<|im_start|>assistant\n<think>", "<think>"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),  # Qwen3, told not to think
        ("<|im_start|>assistant\n", ""),
    ],
)
def test_an_opened_block_is_seen_and_left_out_of_what_the_model_writes(
    prompt: str, opening: str
) -> None:
    assert opening_of(prompt) == opening
    thoughtful, plain = "<think>\nHm.\n</think>\n\n4", "4"
    if opening:
        assert opening + after_opening(thoughtful, opening) == thoughtful
        assert opening + after_opening(plain, opening) == "<think>\n\n</think>\n\n4"


@pytest.mark.parametrize(
    ("saved", "whole"),
    [
        ("Hm.\n</think>\n\n4", "<think>\nHm.\n</think>\n\n4"),
        ("Hm.\n</think>", "<think>\nHm.\n</think>"),
        ("<think>Hm.</think>4", "<think>Hm.</think>4"),
        ("Write `</think>` then.", "Write `</think>` then."),
        ("A block: <think>\nHm.\n</think>\n", "A block: <think>\nHm.\n</think>\n"),
        ("4", "4"),
    ],
)
def test_a_saved_answer_gets_back_the_tag_that_its_prompt_had_written(
    saved: str, whole: str
) -> None:
    assert with_opening(saved) == whole


VOTES = {
    "the most frequent": (["4", "5", "5"], MajorityVote("5", 2, 3)),
    "a tie goes to the first": (["4", "5", "5", "4"], MajorityVote("4", 2, 4)),
    "one answer": ([" 4. "], MajorityVote("4.", 1, 1)),
    "case, blanks and end punctuation": (
        ["the  Sea.", "The\nsea", "Sky"],
        MajorityVote("the  Sea.", 2, 3),
    ),
    "ways to write a number": (
        ["It is 1,000.", "it is 1000.0", "It is 10"],
        MajorityVote("It is 1,000.", 2, 3),
    ),
    "leading zeros": (["7", "007", "70", "700"], MajorityVote("7", 2, 4)),
    "minus nought": (["-0.0", "0", "-1"], MajorityVote("-0.0", 2, 3)),
    "the sign counts": (["-5", "5", "5"], MajorityVote("5", 2, 3)),
    "more digits than a float holds": (
        ["12345678901234567890", "12345678901234567891", "12345678901234567891"],
        MajorityVote("12345678901234567891", 2, 3),
    ),
    "only the last number is read so": (
        ["01 of 4", "1 of 4.0", "1 of 4"],
        MajorityVote("1 of 4.0", 2, 3),
    ),
    "units count": (["$5", "5", "5 euros", "5 Euros!"], MajorityVote("5 euros", 2, 4)),
    "names that end in signs": (["C++", "C", "C#", "c#"], MajorityVote("C#", 2, 4)),
    "no answer is no vote": (["", " ", "4"], MajorityVote("4", 1, 3)),
    "nobody answered": (["", " "], MajorityVote("", 2, 2)),
    "Chinese": (["四。", "四", "五"], MajorityVote("四。", 2, 3)),
}


@pytest.mark.parametrize("name", VOTES)
def test_answers_are_voted_on(name: str) -> None:
    answers, vote = VOTES[name]
    assert majority(answers) == vote


def test_a_vote_counts_each_answer_and_names_the_first_sample_of_the_winner() -> None:
    vote = majority(["41", "42.", "", "42", "41.0", "42", "7"])
    assert (vote.text, vote.first) == ("42.", 1)
    assert vote.tally == (("42.", 3), ("41", 2), ("7", 1))


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


def test_an_answer_that_begins_with_emphasis_or_a_list_keeps_it() -> None:
    for text in ("**42** is it", "* a\n* b"):
        said = join_reasoning("Hm.", text)
        assert split_reasoning(said, answer_line=True) == Reasoned("Hm.", text)
