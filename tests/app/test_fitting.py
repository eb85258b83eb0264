"""The parts that are left out of a prompt that is too long, in order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.fitting import fit
from engine.errors import PromptTooLong
from engine.messages import Message
from engine.prompts.modes import make_template
from feedback_store.personal.example_pool import FeedbackExample

TEMPLATE = make_template("plain", (), "SS")
HISTORY = [
    Message("user", "h1"),
    Message("assistant", "H1"),
    Message("user", "h2"),
    Message("assistant", "H2"),
]
EXAMPLES = tuple(FeedbackExample(f"e{n}", f"E{n}", "", f"a{n}", n, "like") for n in (1, 2))


def letters(messages: Sequence[Message]) -> int:
    return sum(len(message.content) for message in messages)


@pytest.mark.parametrize(
    ("context", "expected", "trimmed"),
    [
        (25, "SS e1 E1 e2 E2 h1 H1 h2 H2 qq", False),  # 20 letters and an answer of 5
        (24, "SS e2 E2 h1 H1 h2 H2 qq", False),
        (21, "SS e2 E2 h1 H1 h2 H2 qq", False),
        (20, "SS h1 H1 h2 H2 qq", False),
        (17, "SS h1 H1 h2 H2 qq", False),
        (16, "SS h2 H2 qq", True),
        (13, "SS h2 H2 qq", True),
        (12, "SS qq", True),
        (9, "SS qq", True),
    ],
)
def test_examples_go_before_the_history_the_least_similar_first(
    context: int, expected: str, trimmed: bool
) -> None:
    fitted = fit(
        TEMPLATE, HISTORY, "qq", EXAMPLES, context_tokens=context, max_new_tokens=5, count=letters
    )
    assert " ".join(m.content for m in fitted.messages) == expected
    assert " ".join(e.answer for e in fitted.examples) == " ".join(
        word for word in expected.split() if word.startswith("E")
    )
    assert [m for m in fitted.messages if m.content[0] not in "eE"] == [*fitted.without_feedback]
    assert fitted.trimmed is trimmed


def test_a_question_that_does_not_fit_alone_is_refused() -> None:
    with pytest.raises(PromptTooLong, match=r"would have 9 tokens, and .* holds 8"):
        fit(TEMPLATE, HISTORY, "qq", EXAMPLES, context_tokens=8, max_new_tokens=5, count=letters)
