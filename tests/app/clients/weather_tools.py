"""Two functions that tests offer to a model, in OpenAI's format, and a question."""

from __future__ import annotations

from typing import Any

from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Rome", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 3},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: list[ChatCompletionToolUnionParam] = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock", "description": "The time."}},
]
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Where is it warm?"}]
