"""A stored answer with its prompt, so that it can be retrieved, and followed by another one.

Knows the store's records and messages; knows nothing of HTTP.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from engine.errors import Conflict, InvalidInput
from engine.messages import Message
from engine.openai_answers import call_id_of
from engine.tools import Spoken, ToolCall, WrittenCall
from feedback_store.records import StoredAnswer, Turn

HAS_INSTRUCTIONS = (
    "instructions"  # beside the sampling: whether the prompt begins with instructions
)


@dataclass(frozen=True, slots=True)
class StoredCompletion:
    """An answer, its words and calls apart, and the prompt that it was given to."""

    turn: Turn
    prompt: tuple[Message, ...]
    answer: StoredAnswer
    spoken: Spoken

    @property
    def has_instructions(self) -> bool:
        """Return whether the prompt's first message holds instructions for this answer alone."""
        return bool(self.answer.sampling.get(HAS_INSTRUCTIONS))

    @property
    def instructions(self) -> str:
        """The instructions; "" if there are none."""
        return self.prompt[0].content if self.has_instructions else ""

    def as_history(self) -> list[Message]:
        """Return what an answer that follows this one is shown of it: the prompt without the
        instructions and the tools, which are each request's own, and the answer.

        Raises `Conflict` while the answer is being made, and `InvalidInput` for calls that were cut
        off.
        """
        if self.answer.status == "streaming":
            raise Conflict("the answer before is still being made")
        first, *rest = self.prompt
        first = replace(first, tools=())
        is_empty = first.role == "system" and not first.content
        history = rest if self.has_instructions or is_empty else [first, *rest]
        calls = tuple(
            ToolCall(call_id_of(self.answer.id, index), call.name, _whole_arguments(call))
            for index, call in enumerate(self.spoken.calls)
        )
        return [*history, Message("assistant", self.spoken.content, calls=calls)]


def _whole_arguments(call: WrittenCall) -> str:
    try:
        json.loads(call.arguments)
    except ValueError:
        raise InvalidInput(f"the answer before was cut off in its call of {call.name}") from None
    return call.arguments
