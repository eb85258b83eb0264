"""The rewriting of conversations to the shape that a chat template accepts.

Many templates refuse a system message (Gemma, the first Mistral) or several messages of one role in
a row. Such messages are rewritten without losing a word: a system text goes in front of the next
question, messages in a row become one. Knows roles and texts; knows nothing of templates' syntax.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from engine.messages import Message, is_blank
from engine.prompts.template_check import TemplateAbilities

BETWEEN = "\n\n"  # texts that become one message


def shape(messages: Sequence[Message], abilities: TemplateAbilities) -> list[Message]:
    """Rewrite messages for a template of these abilities."""
    shaped = list(messages)
    if not abilities.takes_system:
        shaped = _without_system(shaped)
    if not abilities.takes_repeats:
        shaped = _without_repeats(shaped)
    return shaped


def _without_system(messages: Iterable[Message]) -> list[Message]:
    """Put each system text in front of the next question; the last one may be its own question."""
    shaped: list[Message] = []
    held: list[str] = []
    for message in messages:
        if message.role == "system":
            held += [] if is_blank(message.content) else [message.content]
        elif message.role == "user" and held:
            shaped.append(Message("user", BETWEEN.join([*held, message.content])))
            held = []
        else:
            shaped.append(message)
    return [*shaped, Message("user", BETWEEN.join(held))] if held else shaped


def _without_repeats(messages: Iterable[Message]) -> list[Message]:
    shaped: list[Message] = []
    for message in messages:
        if shaped and shaped[-1].role == message.role and not message.uses_tools:
            text = BETWEEN.join([shaped[-1].content, message.content])
            shaped[-1] = replace(shaped[-1], content=text)
        else:
            shaped.append(message)
    return shaped
