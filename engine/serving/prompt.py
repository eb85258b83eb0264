"""The prompt of a request as token ids, and the room that the context leaves for its answer.

A prompt is a conversation, which the chat template renders, or raw: text or token ids.

Knows renderers and the length of the context; knows nothing of models, caches or adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import InvalidInput, PromptTooLong
from engine.prompts.interface import ChatRenderer
from engine.request import GenerationRequest, RawPrompt


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """The token ids of a prompt.

    `prefill_ids`, the last of `ids`, are the beginning of the answer itself, where it is given; a
    raw prompt is all beginning.
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
    if request.prompt is not None:
        ids = raw_ids(request.prompt, renderer, context_tokens, name="the prompt")
        require_context_room(len(ids), context_tokens)
        return TokenizedPrompt(ids, ids, "", context_tokens - len(ids))
    _require_plausible(request, renderer.longest_token_bytes, context_tokens)
    prefill_ids: tuple[int, ...] = ()
    ids, opening = renderer.opened_prompt(request.messages, thinking=request.thinking)
    if request.prefill:
        prefill_ids = renderer.completion(request.prefill, complete=False, opening=opening)
        ids += prefill_ids
    require_context_room(len(ids), context_tokens)
    return TokenizedPrompt(ids, prefill_ids, opening, context_tokens - len(ids))


def raw_ids(
    prompt: RawPrompt, renderer: ChatRenderer, context_tokens: int, *, name: str
) -> tuple[int, ...]:
    """The token ids of a raw prompt, which errors call `name`.

    Raises `PromptTooLong` for text that is far too long, before it is encoded, and `InvalidInput`
    for a prompt without tokens: a model continues at least one.
    """
    if isinstance(prompt, str):
        _require_plausible_bytes([prompt], renderer.longest_token_bytes, context_tokens, name=name)
        prompt = renderer.raw(prompt)
    if not prompt:
        raise InvalidInput(f"{name} has no tokens")
    return prompt


def require_context_room(
    tokens: int, context_tokens: int, *, new_tokens: int = 1, name: str = "the prompt"
) -> None:
    """Raise `PromptTooLong` unless the context has room for so many tokens more."""
    if tokens + new_tokens > context_tokens:
        raise PromptTooLong(f"{name} has {tokens} tokens; the context holds {context_tokens}")


def require_known_ids(ids: Sequence[int], vocabulary: int, *, name: str) -> None:
    """Raise `InvalidInput` for a token id that the model does not have."""
    unknown = next((i for i in ids if not 0 <= i < vocabulary), None)
    if unknown is not None:
        raise InvalidInput(
            f"{name} has token {unknown}; the model has tokens 0 to {vocabulary - 1}"
        )


def _require_plausible(
    request: GenerationRequest, longest_token_bytes: int, context_tokens: int
) -> None:
    """Raise `PromptTooLong` for more bytes than the context's tokens can stand for."""
    require_plausible_count(len(request.messages), context_tokens)
    texts = [message.transcript for message in request.messages] + [request.prefill]
    _require_plausible_bytes(texts, longest_token_bytes, context_tokens, name="the prompt")


def _require_plausible_bytes(
    texts: Sequence[str], longest_token_bytes: int, context_tokens: int, *, name: str
) -> None:
    size = sum(len(said.encode("utf-8", "surrogatepass")) for said in texts)
    if size > context_tokens * longest_token_bytes:
        raise PromptTooLong(
            f"{name} has {size} bytes of text; the context holds {context_tokens} tokens"
        )


def require_plausible_count(messages: int, context_tokens: int) -> None:
    """Raise `PromptTooLong` for more messages than the context has tokens."""
    if messages > context_tokens:
        raise PromptTooLong(
            f"the prompt has {messages} messages; the context holds {context_tokens} tokens"
        )
