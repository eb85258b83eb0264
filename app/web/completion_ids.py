"""The ids of chat completions: OpenAI's prefix before the id of the first stored answer.

Knows ids alone; whether there is such an answer, the store knows.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from engine.errors import InvalidInput

COMPLETION_PREFIX = "chatcmpl-"
TEXT_COMPLETION_PREFIX = "cmpl-"
UNSAVED = "unsaved"


def completion_id(answer_id: str | None) -> str:
    """Return the id of a completion whose first answer has that id; None: it was not stored."""
    return COMPLETION_PREFIX + answer_id if answer_id else UNSAVED


def answer_named(completion: str) -> str:
    """Return the answer that an id names: a completion's first one, or a choice's `answer_id`.

    Raises `InvalidInput` for a text completion's id.
    """
    if completion.startswith(TEXT_COMPLETION_PREFIX):
        raise InvalidInput(
            f"{completion[:80]!r} is a text completion, of which nothing is stored; judge the"
            " answers of /v1/chat/completions"
        )
    return completion.removeprefix(COMPLETION_PREFIX)


# A path's or body's id of an answer, which may be named by its completion
AnswerName = Annotated[str, AfterValidator(answer_named)]
