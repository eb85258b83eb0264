"""Pairs, snapshots and the tiny model's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.render import Renderer
from feedback_store.pairing import Pair, Pairing
from feedback_store.snapshot import PreferenceRow, freeze


def row(question: str, chosen: str, rejected: str, **changed: Any) -> PreferenceRow:
    """A complete pair for one question, in a conversation named after it."""
    fields = {"chosen_complete": True, "rejected_complete": True, "conversation_id": question}
    return PreferenceRow((Message("user", question),), chosen, rejected, **(fields | changed))


def snapshot_of(home: Path, pairs: int) -> str:
    """Freeze short pairs, each of a conversation of its own; returns the digest."""
    return freeze(
        home / "snapshots",
        Pairing(
            [
                Pair(
                    prompt=(Message("user", f"Say word {i}."),),
                    chosen=f"Word {i}.",
                    rejected=f"No, never {i * 7}.",
                    chosen_complete=True,
                    rejected_complete=True,
                    source="votes",
                    conversation_id=f"conversation-{i}",
                    turn_id=f"t{i}",
                    template_hash="hash",
                    event_ids=(2 * i, 2 * i + 1),
                    user_ids=("ann",),
                    chosen_adapter=None,
                    rejected_adapter=None,
                )
                for i in range(pairs)
            ]
        ),
        last_event_count=2 * pairs,
    )


@pytest.fixture(scope="session")
def tokenizer(tiny_base: BaseModel) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base.folder)


@pytest.fixture(scope="session")
def renderer(tokenizer: Any) -> Renderer:
    return Renderer(tokenizer)
