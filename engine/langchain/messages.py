"""LangChain's messages in OpenAI's format, and chunks of answers that become whole messages.

Knows messages; knows nothing of engines and servers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    InvalidToolCall,
    ToolCall,
    ToolCallChunk,
    convert_to_openai_messages,
)
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk

from engine.errors import InvalidInput

# Blocks of an answer that are no words: thoughts, which no model is shown again, and calls, which
# LangChain has in `tool_calls`, too
NOT_WORDS = {"reasoning", "thinking", "redacted_thinking", "tool_call", "invalid_tool_call"}
_CUT_OFF = "the answer ended before the arguments did"


def openai_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Messages in OpenAI's format; raises `InvalidInput`.

    Images and other parts that are not text stay in them, for their reader to refuse.
    """
    try:
        return convert_to_openai_messages([_without_thoughts(message) for message in messages])
    except ValueError as error:
        # The rest of LangChain's sentence quotes the message
        raise InvalidInput(str(error).partition(" Full content block")[0]) from None


def answer_chunk(
    text: str = "",
    thought: str = "",
    calls: Iterable[ToolCallChunk] = (),
    logprobs: Sequence[Mapping[str, Any]] = (),
) -> AIMessageChunk:
    """New parts of an answer. `logprobs` are as in OpenAI's API."""
    return AIMessageChunk(
        content=text,
        additional_kwargs={"reasoning_content": thought} if thought else {},
        tool_call_chunks=list(calls),
        response_metadata={"logprobs": {"content": list(logprobs)}} if logprobs else {},
    )


def call_chunk(index: int, name: str | None, arguments: str, call_id: str | None) -> ToolCallChunk:
    """New text of the call `index`; its first chunk has the name and an id."""
    return tool_call_chunk(name=name, args=arguments, id=call_id, index=index)


def last_chunk(
    finish_reason: str, prompt_tokens: int, completion_tokens: int, cached: int, **more: Any
) -> AIMessageChunk:
    """The end of an answer, with its count of tokens. `more` is metadata of the response."""
    return AIMessageChunk(
        content="",
        usage_metadata=UsageMetadata(
            input_tokens=prompt_tokens,
            output_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            input_token_details=InputTokenDetails(cache_read=cached),
        ),
        response_metadata={"finish_reason": finish_reason, "model_provider": "burnish", **more},
        chunk_position="last",
    )


def whole_answer(chunks: Sequence[AIMessageChunk]) -> AIMessage:
    """The message that chunks add up to.

    A call that was cut off is an invalid one here; a sum of chunks would complete its arguments.
    """
    added: AIMessageChunk = chunks[0] + list(chunks[1:])
    calls, invalid = _calls(added.tool_call_chunks)
    return AIMessage(
        content=added.content,
        additional_kwargs=added.additional_kwargs,
        response_metadata=added.response_metadata,
        usage_metadata=added.usage_metadata,
        tool_calls=calls,
        invalid_tool_calls=invalid,
    )


def _without_thoughts(message: BaseMessage) -> BaseMessage:
    if not isinstance(message, AIMessage) or isinstance(message.content, str):
        return message
    words = [
        block
        for block in message.content
        if isinstance(block, str) or block.get("type") not in NOT_WORDS
    ]
    return message.model_copy(update={"content": words})


def _calls(chunks: Sequence[ToolCallChunk]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for chunk in chunks:
        try:
            arguments = json.loads(chunk["args"] or "")
            calls.append(tool_call(name=chunk["name"] or "", args=arguments, id=chunk["id"]))
        except ValueError:
            invalid.append(
                invalid_tool_call(
                    name=chunk["name"], args=chunk["args"], id=chunk["id"], error=_CUT_OFF
                )
            )
    return calls, invalid
