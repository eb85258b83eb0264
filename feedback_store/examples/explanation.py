"""The explanation of an example: its origin, and what a correction changed. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any, Literal

from engine.prompts.reasoning import untagged
from feedback_store.examples.types import PERSON, Pair, Side, TrainingExample, Unpaired, policy_of

TextChange = tuple[Literal["same", "removed", "added"], str]
KIND = {Pair: "pair", Unpaired: "unpaired"}


def explain(example: TrainingExample, base: str, incumbent: str | None) -> dict[str, Any]:
    """Describe an example with its origin, JSON-ready.

    The event numbers, the users, the adapter that wrote each side, and whether those are the live
    ones: `base` and `incumbent` are the digests of the base model and the live adapter.
    """
    origin = example.origin
    document: dict[str, Any] = {
        "id": example.id,
        "kind": KIND.get(type(example), "demonstration"),
        "source": example.source,
        "policy": policy_of(example, base, incumbent),
        "events": list(origin.event_ids),
        "users": list(origin.user_ids),
        "conversation": origin.conversation_id,
        "question": example.prompt[-1].content,
    }
    if isinstance(example, Pair):
        document |= {"chosen": _side(example.chosen), "rejected": _side(example.rejected)}
        if example.source == "correction":
            document["changes"] = list(changes(example.rejected.text, example.chosen.text))
    else:
        document["completion"] = _side(example.completion)
    if isinstance(example, Unpaired):
        document["label"] = example.label
    return document


def changes(original: str, corrected: str) -> Iterator[TextChange]:
    """The changes of a correction, word by word, in reading order."""
    before, after = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (original, corrected))
    # `autojunk` leaves what is everywhere, such as spaces, out of the search for what stayed:
    # without it two long texts take minutes
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=True)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            yield "same", "".join(before[i:j])
            continue
        if i < j:
            yield "removed", "".join(before[i:j])
        if k < m:
            yield "added", "".join(after[k:m])


def written_by(side: Side) -> str:
    """The author of a side: a person, a file's author, the base model or an adapter."""
    if side.base == PERSON:
        return PERSON
    return side.adapter or ("base" if side.base.startswith("sha256:") else side.base)


def _side(side: Side) -> dict[str, Any]:
    return {
        "text": side.text,
        "thought": untagged(side.thought),
        "complete": side.complete,
        "answer": side.answer_id,
        "written_by": written_by(side),
    }
