"""Reads texts and token ids in the four forms of OpenAI's `prompt` and `input`.

Knows nothing of HTTP, of tokenizers and of what the texts are for.
"""

from __future__ import annotations

from typing import Any

from engine.errors import InvalidInput
from engine.messages import clean_text
from engine.request import RawPrompt


def raw_prompts_of(given: Any, name: str, *, most: int) -> list[RawPrompt]:
    """Return the prompts of a field: one or several, each as text or as token ids.

    A body may hold a million ids, so this is called by the thread that submits them. Raises
    `InvalidInput` or `InvalidText` with the field's name.
    """
    items = given if isinstance(given, list) else [given]
    if items and all(type(item) is int for item in items):
        return [tuple(items)]
    if not items:
        raise InvalidInput(f"{name} is an empty list")
    if len(items) > most:
        raise InvalidInput(f"{name} has {len(items)} texts; at most {most} are answered at once")
    return [_raw_prompt(item, name, place) for place, item in enumerate(items)]


def _raw_prompt(item: Any, name: str, place: int) -> RawPrompt:
    if isinstance(item, str):
        return clean_text(item, what=f"{name} {place}", limit_chars=len(item))
    if isinstance(item, list) and all(type(token) is int for token in item):
        return tuple(item)
    raise InvalidInput(
        f"{name} must be a text, a list of texts, a list of token ids, or a list of such lists"
    )
