"""The format of calls that a chat template writes, found by what it renders, not by its source.

A small conversation with a tool, a call and its result is rendered in each dialect. A format that
shows all three is the template's own; where none does, tools are offered as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.messages import Message
from engine.prompts.calls.formats import CALL_FORMATS, GLM4, HERMES, CallFormat, Dialect
from engine.prompts.calls.messages import template_messages
from engine.tools import Tool, ToolCall, WrittenCall

TOOL = Tool("probe_tool", "It probes a thing.", '{"type": "object", "properties": {}}')
CALL = ToolCall("call00000", TOOL.name, '{"thing": 1}')
RESULT = "The thing is probed."
PROBED = (
    Message("user", "Probe it."),
    Message("assistant", "", calls=(CALL,)),
    Message("tool", RESULT, call_id=CALL.id),
)


def probes() -> dict[Dialect, dict[str, Any]]:
    """The variables `messages` and `tools` of each dialect's rendering."""
    tools = [TOOL.as_dict()]
    return {
        form.dialect: {"messages": template_messages(PROBED, tools, form), "tools": tools}
        for form in (HERMES, GLM4)
    }


def recognised(rendered: Mapping[Dialect, str | None]) -> CallFormat | None:
    """The format of a template that made these texts of the probes (None: it refused one)."""
    return next((form for form in CALL_FORMATS if _shows_all(rendered[form.dialect], form)), None)


def _shows_all(text: str | None, form: CallFormat) -> bool:
    # Some templates write an id behind the arguments, which models do not
    call = form.write([WrittenCall(CALL.name, CALL.arguments)])
    begun = call[: call.index(CALL.arguments) + len(CALL.arguments)]
    return text is not None and all(part in text for part in (TOOL.description, begun, RESULT))
