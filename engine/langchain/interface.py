"""The interface that `ChatBurnish` needs of the place where answers are made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.messages import AIMessageChunk

from engine.langchain.options import CallOptions


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One answer that is wanted. `messages` are in OpenAI's format."""

    messages: list[dict[str, Any]]
    options: CallOptions


class ChunkSource(Protocol):
    """Makes answers, as chunks that add up to a message.

    The last chunk has the usage, the end's reason, and the position "last". Errors are those of
    `engine.errors`; one of the request itself comes before the first chunk. An iterator that is
    closed early ends its answer.
    """

    def stream(self, request: ChatRequest) -> Iterator[AIMessageChunk]:
        """Yield the chunks of one answer."""

    def astream(self, request: ChatRequest) -> AsyncGenerator[AIMessageChunk, None]:
        """The same, without blocking the event loop."""
