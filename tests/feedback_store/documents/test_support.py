"""Which sentences are marked: expected by reading them beside their passages."""

from __future__ import annotations

import pytest

from feedback_store.documents.support import judged_sentences, prose_sentences, unsupported_ends

PASSAGES = [
    {"text": "Employees have thirty days of vacation a year. 5 of them may be kept until March."},
    {"text": "Trains are booked in second class.", "heading": "Travel"},
]
CHINESE = [{"text": "员工每年有三十天年假，未用完的可以顺延到次年三月。"}]


def marked(answer: str, passages: list[dict[str, str]]) -> list[str]:
    """The sentences that are marked."""
    ends = unsupported_ends(answer, passages)
    return [text.strip() for text, end in prose_sentences(answer) if end in ends]


@pytest.mark.parametrize(
    "answer",
    [
        "Employees have thirty days of vacation [1].",
        "The vacation of employees is thirty days a year.[1] Yes.",
        "You may keep 5 days until March.",  # cites nothing, and passage 1 says it
        "Travel in second class trains [2]. Thirty days of vacation a year [1].",
        "Employees have thirty days of vacation, and trains are booked second class [1, 2].",
        "# Rules of a completely different company\n\n```\nprint('moon cheese rockets')\n```",
        "| moon | cheese | rockets |",
        "The documents do not say.",
    ],
)
def test_what_a_passage_says_is_not_marked(answer: str) -> None:
    assert marked(answer, PASSAGES) == []


@pytest.mark.parametrize(
    "sentence",
    [
        "Lunch is free on every Friday for all employees [1].",
        "You may keep 7 days until March [1].",  # another number
        "Employees have thirty days of vacation a year [2].",  # another passage's
        "Employees have thirty days of vacation [3].",  # there is none
        "Moon rockets burn cheese.",
    ],
)
def test_what_no_passage_says_is_marked_alone(sentence: str) -> None:
    answer = f"Employees have thirty days of vacation [1]. {sentence} Trains are second class [2]."
    assert marked(answer, PASSAGES) == [sentence]


def test_a_sentence_that_cites_nothing_has_the_passage_that_says_most_of_it() -> None:
    answer = (
        "Trains are booked in second class. You may keep 5 days until March. Yes. Cheese melts."
    )
    judged = [(each.passage, each.cites) for each in judged_sentences(answer, PASSAGES)]
    assert judged == [(2, False), (1, False)]  # "Yes." and "Cheese melts." are too short to judge
    (cited,) = judged_sentences("Employees have thirty days of vacation [1].", PASSAGES)
    assert (cited.passage, cited.cites) == (1, True)


def test_chinese_sentences_are_judged_by_bigrams() -> None:
    answer = "员工每年有三十天年假 [1]。公司每周五提供免费午餐和水果。未用完的年假可以顺延到三月。"
    assert marked(answer, CHINESE) == ["公司每周五提供免费午餐和水果。"]


def test_a_sentence_in_another_language_than_its_passage_is_not_judged() -> None:
    assert marked("Employees may move unused days to March [1].", CHINESE) == []


def test_without_passages_nothing_is_marked() -> None:
    assert unsupported_ends("Moon rockets burn cheese.", []) == []


def test_sentences_end_where_readers_see_an_end() -> None:
    text = "Version 3.5 costs 12 dollars [1]. It is new!\n- e.g. a list. 真的吗？是的。[2]\n1. One"
    assert [s.strip() for s, _ in prose_sentences(text)] == [
        "Version 3.5 costs 12 dollars [1].",
        "It is new!",
        "e.g. a list.",
        "真的吗？",
        "是的。[2]",
        "One",
    ]
