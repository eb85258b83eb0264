"""What is said of an answer by its text, in English and Chinese."""

from __future__ import annotations

import pytest

from tuning.evaluation.text_metrics import (
    AnswerFormat,
    Language,
    is_empty,
    keeps_format,
    language,
    refuses,
    repetition,
)


@pytest.mark.parametrize("text", ["", " \n\t", "...", "。", "**  **", "\u200b", "🙂"])
def test_an_answer_without_a_letter_or_a_digit_is_empty(text: str) -> None:
    assert is_empty(text)


@pytest.mark.parametrize("text", ["No.", "7", "好", "é"])
def test_an_answer_of_one_letter_is_not_empty(text: str) -> None:
    assert not is_empty(text)


def test_repetition_is_the_share_of_four_word_phrases_that_were_there_before() -> None:
    assert repetition("one two three four five six") == 0.0
    # 12 words have 9 phrases of four; of "a b c d" thrice, 4 are different
    assert repetition("a b c d a b c d a b c d") == pytest.approx(1 - 4 / 9)
    assert repetition("The cat. the CAT, the cat; the cat") == pytest.approx(1 - 2 / 5)


def test_chinese_repetition_is_counted_by_characters() -> None:
    assert repetition("春天来了春天来了") == pytest.approx(1 - 4 / 5)
    assert repetition("春天是一个美丽的季节") == 0.0


def test_a_text_of_up_to_four_words_repeats_nothing() -> None:
    assert repetition("") == repetition("no no no no") == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot discuss this.",
        "Unfortunately, I am unable to answer.",
        "As an AI language model, I have no opinion.",
        "很抱歉，我无法回答这个问题。",
        "对不起，这个问题我不能回答。",
        "作为一个人工智能，我没有意见。",
        "我不能提供这样的信息。",
    ],
)
def test_refusals_are_known_by_their_phrases(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize(
    "text",
    [
        "Lisbon is the capital of Portugal.",
        "Sorry to hear that! Try going to bed at the same time each day.",
        "You cannot see a rainbow at noon in summer.",
        "抱歉听到你睡不好，可以早点休息。",
        "水不能在零度以下保持液态。",
        "It was a long story. " * 10 + "At last he said: I'm sorry, but I can't stay.",
    ],
)
def test_other_answers_are_no_refusals(text: str) -> None:
    assert not refuses(text)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("The sea is wide.", "en"),
        ("海很宽。", "zh"),
        ("你可以用 Python 写一个程序。", "zh"),
        ("The Chinese word for sea is 海.", "en"),
        ("程序如下：\n```python\nprint('hello, hello, hello')\n```", "zh"),
        ("```python\nprint('海')\n```", None),
        ("42", None),
        ("", None),
    ],
)
def test_the_language_is_told_by_the_script_of_the_words(
    text: str, spoken: Language | None
) -> None:
    assert language(text) == spoken


@pytest.mark.parametrize(
    ("asked", "text", "kept"),
    [
        ("list", "- one\n- two", True),
        ("list", "Here:\n 1. one\n 2) two", True),
        ("list", "1、红\n2、蓝", True),
        ("list", "- only one", False),
        ("list", "<think>- one\n- two</think>One and two.", False),
        ("list", "one, two and three", False),
        ("json", '{"a": 1}', True),
        ("json", "Sure:\n```json\n[1, 2]\n```\n", True),
        ("json", '<think>\nHm.\n</think>\n\n{"a": 1}', True),
        ("json", '{"a": 1', False),
        ("json", "1", False),  # JSON, but no object
        ("json", "[" * 100_000, False),
        ("code", "```python\nx = 1\n```", True),
        ("code", "```python\nx = 1", False),
        ("code", "```\nx\n```\nand\n```\ny", False),
        ("code", "x = 1", False),
        ("thought", "Three and four make seven.\nAnswer: 7", True),
        ("thought", "<think>3 + 4</think>7", True),
        ("thought", "7", False),
        ("thought", "Three and four.\nAnswer:", False),
        ("thought", "Answer: 7", False),
    ],
)
def test_the_form_is_kept_where_the_answer_can_be_read_as_asked(
    asked: AnswerFormat, text: str, kept: bool
) -> None:
    assert keeps_format(text, asked) is kept
