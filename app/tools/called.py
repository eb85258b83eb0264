"""One call of a tool, as it is shown while it runs and stored with its answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from engine.messages import Message
from engine.tools import ToolCall

CallStatus = Literal["running", "done", "failed", "stopped"]
NO_RESULT = "The call was stopped."


@dataclass(frozen=True, slots=True)
class CalledTool:
    """A call with its arguments, a JSON object as JSON, and its result: text by a stranger, or
    why it failed."""

    name: str
    arguments: str
    result: str = ""
    status: CallStatus = "running"

    def as_row(self) -> dict[str, Any]:
        """The form in which it is stored."""
        return asdict(self)


def called_from_rows(rows: Iterable[Mapping[str, Any]]) -> tuple[CalledTool, ...]:
    """Return stored calls."""
    return tuple(CalledTool(**row) for row in rows)


def as_messages(called: Sequence[CalledTool]) -> tuple[Message, ...]:
    """Return the messages that show calls and their results to a model."""
    messages: list[Message] = []
    for number, each in enumerate(called):
        call = ToolCall(f"call_{number}", each.name, each.arguments)
        messages.append(Message("assistant", "", calls=(call,)))
        messages.append(Message("tool", each.result or NO_RESULT, call_id=call.id))
    return tuple(messages)
