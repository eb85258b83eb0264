"""The parts that are left out of a prompt that is too long, in order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.answering.fitting import drop_oldest, fit
from engine.errors import PromptTooLong
from engine.messages import Message
from engine.prompts.modes import make_template
from engine.tools import ToolCall
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


CALLED = (
    Message("system", "SS"),
    Message("user", "u1"),
    Message("assistant", "A1", calls=(ToolCall("c", "clock", "{}"),)),
    Message("tool", "T1", call_id="c"),
    Message("assistant", "B1"),
    Message("user", "u2"),
    Message("assistant", "A2"),
    Message("user", "u3"),
)


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (16, "SS u1 A1 T1 B1 u2 A2 u3"),
        (15, "SS u2 A2 u3"),
        (8, "SS u2 A2 u3"),
        (7, "SS u3"),
        (1, "SS u3"),  # the engine refuses it
    ],
)
def test_the_oldest_exchanges_are_dropped_with_their_calls_and_results(
    room: int, expected: str
) -> None:
    kept = drop_oldest(CALLED, lambda messages: letters(messages) <= room)
    assert " ".join(message.content for message in kept) == expected
