"""What of a prompt fits into the model's context, and what is left out first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.errors import PromptTooLong
from engine.messages import Message
from engine.prompts.modes import PromptTemplate
from feedback_store.personal.example_pool import FeedbackExample


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A prompt that fits, without examples from feedback and with those that are shown."""

    without_feedback: tuple[Message, ...]
    messages: tuple[Message, ...]
    examples: tuple[FeedbackExample, ...]
    trimmed: bool  # whether the history lost its beginning


def fit(
    template: PromptTemplate,
    history: Sequence[Message],
    question: str,
    examples: tuple[FeedbackExample, ...],
    *,
    context_tokens: int,
    max_new_tokens: int,
    count: Callable[[Sequence[Message]], int],
) -> FittedPrompt:
    """The prompt that leaves room for the answer; `count` says how many tokens messages have.

    The examples from feedback, from the first on, are left out before any of the history: they show
    a manner, while the question may refer to anything that was said. Then the oldest exchanges go.
    System prompt and the examples of the template are always kept. Raises `PromptTooLong` when the
    question does not fit even alone.
    """
    exchanges = len(history) // 2

    def with_newest(kept: int) -> tuple[Message, ...]:
        return template.build(history[2 * (exchanges - kept) :], question)

    room = context_tokens - max_new_tokens
    whole = with_newest(exchanges)
    for first in range(len(examples)):
        messages = template.with_examples(whole, examples[first:])
        if count(messages) <= room:
            return FittedPrompt(whole, messages, examples[first:], False)
    require_room(count(with_newest(0)), context_tokens, max_new_tokens)
    kept = _largest(lambda kept: count(with_newest(kept)) <= room, exchanges)
    return FittedPrompt(with_newest(kept), with_newest(kept), (), kept < exchanges)


def require_room(prompt_tokens: int, context_tokens: int, max_new_tokens: int) -> None:
    """Raises `PromptTooLong` where a prompt leaves no room for an answer of that length."""
    if prompt_tokens + max_new_tokens > context_tokens:
        raise PromptTooLong(
            "the message is too long: prompt and answer would have"
            f" {prompt_tokens + max_new_tokens} tokens, and the model's context holds"
            f" {context_tokens}"
        )


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, where all below one that fits do, as 0 does.

    By doubling, then by bisection: what does not fit is tried at about twice the size that does.
    """
    low, high = 0, most + 1
    step = 1
    while low + 1 < high:
        probe = min(low + step, high - 1)
        if fits(probe):
            low, step = probe, 2 * step
        else:
            high, step = probe, max(1, (probe - low) // 2)
    return low
