"""Fits a prompt into the model's context by leaving out examples, then history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.errors import PromptTooLong
from engine.messages import Message
from engine.prompts.modes import PromptTemplate
from feedback_store.personal.example_pool import FeedbackExample


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A prompt that fits, both without and with its examples from feedback."""

    without_feedback: tuple[Message, ...]
    messages: tuple[Message, ...]
    examples: tuple[FeedbackExample, ...]
    trimmed: bool  # whether the beginning of the history was left out


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
    """Return the prompt that leaves room for the answer; `count` counts the tokens of messages.

    Examples from feedback are left out first, beginning with the first one: they show a style,
    while the question may refer to anything in the history. Then the oldest exchanges are left
    out. The system prompt and the template's own examples are always kept.

    Raises `PromptTooLong` if the question does not fit even without history.
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


def drop_oldest(
    messages: tuple[Message, ...], fits: Callable[[Sequence[Message]], bool]
) -> tuple[Message, ...]:
    """Return the messages without the oldest exchanges, as many as are left out until the rest
    `fits`; system messages at the beginning, and the last exchange, are always kept.

    An exchange begins with a user's message, so that results stay with their calls.
    """
    head = next((i for i, each in enumerate(messages) if each.role != "system"), len(messages))
    begins = [i for i in range(head, len(messages)) if messages[i].role == "user"]

    def with_newest(kept: int) -> tuple[Message, ...]:
        """The last exchange and `kept` before it; all of them are the whole conversation."""
        if kept + 1 >= len(begins):
            return messages
        return (*messages[:head], *messages[begins[-1 - kept] :])

    return with_newest(_largest(lambda kept: fits(with_newest(kept)), max(0, len(begins) - 1)))


def require_room(prompt_tokens: int, context_tokens: int, max_new_tokens: int) -> None:
    """Raise `PromptTooLong` if a prompt leaves no room for an answer of that length."""
    if prompt_tokens + max_new_tokens > context_tokens:
        raise PromptTooLong(
            "the message is too long: prompt and answer would have"
            f" {prompt_tokens + max_new_tokens} tokens, and the model's context holds"
            f" {context_tokens}"
        )


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest number up to `most` that fits; `fits` must be monotonic and hold for 0.

    Searches by doubling, then by bisection, so that no number far above the result is tried.
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
