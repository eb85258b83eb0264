"""Taking a snapshot: the examples of now, frozen."""

from __future__ import annotations

from pathlib import Path

from engine.storage import folder_of, remove_folder
from feedback_store.curation.decisions import Curation
from feedback_store.examples.types import Redact
from feedback_store.snapshots.snapshot import freeze
from feedback_store.view.training_set import TrainingSet


def take_snapshot(
    root: Path,
    training_set: TrainingSet,
    curation: Curation,
    *,
    redact: Redact | None = None,
    thoughts_in_loss: bool = True,
    may_be_empty: bool = False,
) -> str:
    """Freeze the examples of now under `root`; returns the snapshot's digest.

    The trust in users is estimated anew first. A person who is forgotten meanwhile is not in the
    snapshot. For the other arguments see `freeze`. Raises `InvalidInput` when there is nothing to
    train on, unless it `may_be_empty`.
    """
    while True:
        training_set.refresh(reestimate=True)
        summary, examples = training_set.load_examples()
        digest = freeze(
            root,
            examples,
            last_event=summary.last_event,
            gold=curation.gold(),
            redact=redact,
            thoughts_in_loss=thoughts_in_loss,
            may_be_empty=may_be_empty,
        )
        if not training_set.erased_since(summary):
            return digest
        remove_folder(folder_of(root, digest))
