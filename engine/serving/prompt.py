"""The prompt of a request as token ids, and the room that the context leaves for its answer.

Knows renderers and the length of the context; knows nothing of models, caches or adapters.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import PromptTooLong
from engine.prompts.interface import ChatRenderer
from engine.request import GenerationRequest


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """The token ids of a prompt.

    `prefill_ids`, the last of `ids`, are the beginning of the answer itself, where it is given.
    `opening` is the think block that the messages' prompt opens at its end, "" where it opens none.
    `room` is how many tokens the context holds beyond `ids`.
    """

    ids: tuple[int, ...]
    prefill_ids: tuple[int, ...]
    opening: str
    room: int


def fit_prompt(
    request: GenerationRequest, renderer: ChatRenderer, context_tokens: int
) -> TokenizedPrompt:
    """Render a request's prompt; raises `PromptTooLong` if no room is left for an answer.

    A prompt that is far too long is refused before it is rendered, which would take seconds and
    gigabytes.
    """
    _require_plausible(request, renderer.longest_token_bytes, context_tokens)
    prefill_ids: tuple[int, ...] = ()
    opening = renderer.opening(request.messages, thinking=request.thinking)
    if request.prefill:
        prefill_ids = renderer.completion(request.prefill, complete=False, opening=opening)
    ids = renderer.prompt(request.messages, thinking=request.thinking) + prefill_ids
    require_context_room(len(ids), context_tokens)
    return TokenizedPrompt(ids, prefill_ids, opening, context_tokens - len(ids))


def require_context_room(tokens: int, context_tokens: int) -> None:
    """Raise `PromptTooLong` unless the context has room for one token more."""
    if tokens >= context_tokens:
        raise PromptTooLong(f"the prompt has {tokens} tokens; the context holds {context_tokens}")


def _require_plausible(
    request: GenerationRequest, longest_token_bytes: int, context_tokens: int
) -> None:
    """Raise `PromptTooLong` for more bytes than the context's tokens can stand for."""
    require_plausible_count(len(request.messages), context_tokens)
    texts = [message.transcript for message in request.messages] + [request.prefill]
    size = sum(len(said.encode("utf-8", "surrogatepass")) for said in texts)
    if size > context_tokens * longest_token_bytes:
        raise PromptTooLong(
            f"the prompt has {size} bytes of text; the context holds {context_tokens} tokens"
        )


def require_plausible_count(messages: int, context_tokens: int) -> None:
    """Raise `PromptTooLong` for more messages than the context has tokens."""
    if messages > context_tokens:
        raise PromptTooLong(
            f"the prompt has {messages} messages; the context holds {context_tokens} tokens"
        )
