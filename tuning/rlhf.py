"""Reward model and AI labels as parts of a run: where they are kept and what a run makes of them.

Knows a run's snapshot, recipe and folders; how each is made is `methods.reward`'s and `judge`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import set_seed

from engine.errors import InvalidInput
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.prompts.load import load_template_renderer
from engine.prompts.render import Renderer
from engine.storage import write_atomically
from feedback_store.ai_feedback.ai_pairs import AiPair, draw_pairs, open_ai_pairs, publish_ai_pairs
from feedback_store.ai_feedback.siblings import Siblings
from feedback_store.examples.types import Pair
from feedback_store.snapshots.snapshot import Snapshot
from tuning.dataset import tokenize
from tuning.judge import Judge, agreement, label
from tuning.methods.common import Stage
from tuning.methods.reward import (
    RewardModel,
    fresh_reward_model,
    heldout_accuracy,
    publish_reward,
    train_reward,
)
from tuning.methods.rloo import distinct_prompts, train_rloo
from tuning.recipe import Recipe
from tuning.reference_cache import PairRow
from tuning.rlhf_recipes import RlaifRecipe


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


def make_reward_model(
    base: BaseModel,
    snapshot: Snapshot,
    recipe: Recipe,
    rows: Sequence[PairRow],
    stage: Stage,
    root: Path,
) -> dict[str, Any]:
    """Train and publish a reward model, unless this run did already.

    Returns its digest as `reward_model` and its accuracy on held-out pairs. Raises `InvalidInput`
    without pairs.
    """
    if not rows:
        raise InvalidInput("nothing to train on: reward needs preference pairs")
    finished = stage.folder / "finished.json"
    if finished.is_file():
        about: dict[str, Any] = json.loads(finished.read_text("utf-8"))
        return about
    set_seed(recipe.seed)
    model = fresh_reward_model(base, recipe.reward)
    train_reward(model, rows, recipe.reward, stage)
    renderer = load_template_renderer(base.folder)
    about = _accuracy(model, renderer, snapshot, recipe.max_sequence_tokens)
    digest = publish_reward(root, model, base, {"snapshot": snapshot.digest, **about})
    about = {"reward_model": digest, **about}
    write_atomically(finished, json.dumps(about).encode())
    return about


def prompts_for_rloo(renderer: Renderer, snapshot: Snapshot, recipe: Recipe) -> Dataset:
    """Column prompt: each prompt of the training pairs once, if it leaves room for an answer."""
    limit = recipe.max_sequence_tokens - recipe.rloo.max_new_tokens
    prompts, _ = distinct_prompts(renderer, snapshot.train.pairs, limit)
    return Dataset.from_list([{"prompt": ids} for ids in prompts])


def train_on_reward(
    base: BaseModel,
    root: Path,
    digest: str,
    model: PeftModel,
    rows: Dataset,
    recipe: Recipe,
    stage: Stage,
) -> None:
    """RLOO on a published reward model; a stage's train function once the first three are given."""
    reward = RewardModel.open(root, digest, base)
    train_rloo(model, rows["prompt"][:], recipe.rloo, stage, reward.score_ids)


def _accuracy(
    model: PeftModel, renderer: Renderer, snapshot: Snapshot, limit: int
) -> dict[str, Any]:
    rendered = [(pair, tokenize(renderer, [pair], limit)) for pair in snapshot.heldout.pairs]
    fitting = [(pair, one.rows[0]) for pair, one in rendered if one.rows]
    score = RewardModel(model, renderer).score_ids
    return heldout_accuracy(score, [row for _, row in fitting], [pair for pair, _ in fitting])
