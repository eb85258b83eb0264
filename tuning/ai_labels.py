"""AI labels: a judge labels siblings, and a run draws a share of a set of labels.

How a judge decides is in `tuning.judge`. Knows no trainer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import InvalidInput
from engine.home import Home
from feedback_store.ai_feedback.ai_pairs import AiPair, draw_pairs, open_ai_pairs, publish_ai_pairs
from feedback_store.ai_feedback.siblings import Siblings
from feedback_store.examples.types import Pair
from tuning.judge import Judge, agreement, label
from tuning.recipe_sections import RlaifRecipe


def label_siblings(
    judge: Judge,
    siblings: Iterable[Siblings],
    heldout: Sequence[Pair],
    *,
    root: Path,
    snapshot: str,
) -> str:
    """Let a judge label siblings and publish the labels for a snapshot; returns their digest.

    Their manifest tells how each comparison ended, and how the judge decides the held-out pairs
    that people decided. Raises the judge's errors, and `InvalidInput` where nothing was labelled.
    """
    labelled = label(judge, siblings)
    return publish_ai_pairs(
        root,
        labelled.pairs,
        snapshot=snapshot,
        judge=judge.name,
        about={
            "outcomes": dict(labelled.outcomes),
            "agreement_with_people": agreement(judge, heldout),
        },
    )


def drawn_ai_pairs(home: Home, recipe: RlaifRecipe, snapshot: str, seed: int) -> list[AiPair]:
    """The AI labels that a run reads: none, or a share of the set that the recipe names.

    Raises `InvalidInput` for a set that cannot be read or was made for another snapshot, in which
    people may since have judged the same answers.
    """
    if recipe.labels is None:
        return []
    found = open_ai_pairs(home.ai_labels, recipe.labels)
    if found.manifest["snapshot"] != snapshot:
        raise InvalidInput("rlaif.labels: these labels were made for another snapshot")
    return draw_pairs(found.pairs, recipe.share, seed)


def labels_of(recipe: Mapping[str, Any]) -> str | None:
    """The set of AI labels that a recipe in plain values, perhaps an old one, names."""
    labels: str | None = recipe.get("rlaif", {}).get("labels")
    return labels
