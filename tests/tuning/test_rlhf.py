"""Reward model, RLOO and AI labels in a whole run: what is read, what is made, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.bundle import open_bundle
from engine.errors import InvalidInput
from engine.home import Home
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.storage import list_digests
from feedback_store.ai_feedback.ai_pairs import open_ai_pairs
from feedback_store.ai_feedback.siblings import Siblings
from feedback_store.examples.types import Examples, Side
from feedback_store.snapshots.snapshot import freeze, open_snapshot
from tests.support.job_events import of_type, steps_of
from tests.support.pairs import row, snapshot_of
from tuning.ai_labels import drawn_ai_pairs, label_siblings
from tuning.jobs.events import DataRead, JobEvent, RewardModelMade
from tuning.judge import Letter
from tuning.methods.dpo import DpoRecipe
from tuning.methods.reward import RewardRecipe
from tuning.methods.reward_model import RewardModel
from tuning.methods.rloo import RlooRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import Recipe, read_recipe, recipe_from_dict
from tuning.recipe_sections import AdapterRecipe, RlaifRecipe
from tuning.train import run
from tuning.training_run import TrainingRun

ALL = Recipe(
    adapter=AdapterRecipe(rank=2, alpha=4),
    sft=SftRecipe(epochs=0),
    dpo=DpoRecipe(epochs=1),
    reward=RewardRecipe(epochs=1, rank=2, alpha=4),
    rloo=RlooRecipe(epochs=1, samples=2, max_new_tokens=4),
    max_sequence_tokens=200,
)
Events = list[JobEvent]


@dataclass(frozen=True)
class Longer:
    """Prefers the longer answer, and says nothing of equals."""

    name: str = "longer"

    def choose(self, prompt: Sequence[Message], a: str, b: str) -> Letter | None:
        if len(a) == len(b):
            return None
        return "A" if len(a) > len(b) else "B"


def siblings(count: int) -> list[Siblings]:
    def side(text: str) -> Side:
        return Side(text, "", True, f"answer-{text}", "sha256:base", None)

    return [
        Siblings(
            (Message("user", f"Name word {i}."),),
            (side(f"It is {i}."), side(f"{i}.")),
            f"unjudged-{i}",
            "hash",
            "ann",
        )
        for i in range(count)
    ]


def tune(
    home: Path, base: BaseModel, snapshot: str, recipe: Recipe, job: str = "job"
) -> tuple[str, Events]:
    """Run a recipe; returns the bundle and the events."""
    events: Events = []
    digest = run(
        TrainingRun(
            base, open_snapshot(Home(home).snapshots, snapshot), recipe, {}, home / job, Home(home)
        ),
        events.append,
    )
    return digest, events


@pytest.mark.integration
def test_one_recipe_trains_a_reward_model_and_then_a_bundle_on_it(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    snapshot = snapshot_of(tmp_path, 12)
    digest, events = tune(tmp_path, tiny_base, snapshot, ALL)
    manifest = open_bundle(Home(tmp_path).bundles, digest, tiny_base).manifest
    (reward,) = of_type(events, RewardModelMade)
    assert list_digests(Home(tmp_path).rewards) == [reward.reward_model]
    assert manifest["reward_model"] == reward.reward_model
    heldout = len(open_snapshot(Home(tmp_path).snapshots, snapshot).heldout.pairs)
    assert reward.heldout_pairs == manifest["heldout_pairs"] == heldout > 0
    assert reward.longer_wins_accuracy == 0  # each rejected answer is the longer one
    stages = [stage for stage, _ in steps_of(events)]
    assert list(dict.fromkeys(stages)) == ["reward", "dpo", "rloo"]
    scorer = RewardModel.open(Home(tmp_path).rewards, reward.reward_model, tiny_base)
    assert isinstance(scorer.score((Message("user", "Say word 1."),), "Word 1."), float)
    _, again = tune(tmp_path, tiny_base, snapshot, ALL)  # as after a crash at the very end
    assert of_type(again, RewardModelMade) == [reward]
    assert not steps_of(again)


def test_a_reward_model_needs_pairs(tmp_path: Path, tiny_base: BaseModel) -> None:
    pairs = [row(f"Say {number}.", "x" * 900, "y") for number in range(4)]
    snapshot = freeze(Home(tmp_path).snapshots, Examples(pairs=pairs), last_event=1)
    with pytest.raises(InvalidInput, match="reward needs preference pairs"):
        tune(tmp_path, tiny_base, snapshot, ALL)


@pytest.mark.integration
def test_a_share_of_the_ai_labels_joins_peoples_pairs_in_dpo_alone(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    """8 labels at a share of 1/4 are 2 rows."""
    snapshot = snapshot_of(tmp_path, 6)
    labels = label_siblings(
        Longer(), siblings(8), [], root=Home(tmp_path).ai_labels, snapshot=snapshot
    )
    recipe = replace(
        ALL,
        sft=SftRecipe(epochs=1),
        rloo=RlooRecipe(),
        reward=RewardRecipe(),
        rlaif=RlaifRecipe(labels=labels, share=0.25),
    )
    digest, events = tune(tmp_path, tiny_base, snapshot, recipe)
    people = len(open_snapshot(Home(tmp_path).snapshots, snapshot).train.pairs)
    manifest = open_bundle(Home(tmp_path).bundles, digest, tiny_base).manifest
    assert manifest["rows"] == {"sft": people, "dpo": people + 2}
    assert manifest["pairs"] == people
    (data,) = of_type(events, DataRead)
    assert manifest["ai_pairs"] == data.ai_pairs == 2
    assert manifest["recipe"]["rlaif"]["labels"] == labels  # the lineage, for forgetting


def test_labels_tell_how_they_came_about(tmp_path: Path) -> None:
    heldout = [row("1", "a long answer", "short"), row("2", "short", "a long answer")]
    alike = replace(siblings(1)[0], answers=siblings(1)[0].answers[:1] * 2)
    digest = label_siblings(
        Longer(), [*siblings(3), alike], heldout, root=tmp_path, snapshot="sha256:s"
    )
    manifest = open_ai_pairs(tmp_path, digest).manifest
    assert manifest["outcomes"] == {"labelled": 3}
    assert manifest["agreement_with_people"] == {"agrees": 1, "contradicts": 1}
    assert (manifest["judge"], manifest["snapshot"]) == ("longer", "sha256:s")


def test_labels_of_another_snapshot_are_refused_since_people_may_have_judged_since(
    tmp_path: Path,
) -> None:
    labels = label_siblings(
        Longer(), siblings(2), [], root=Home(tmp_path).ai_labels, snapshot="sha256:old"
    )
    recipe = RlaifRecipe(labels=labels)
    with pytest.raises(InvalidInput, match="another snapshot"):
        drawn_ai_pairs(Home(tmp_path), recipe, "sha256:new", 0)
    assert len(drawn_ai_pairs(Home(tmp_path), recipe, "sha256:old", 0)) == 1
    assert drawn_ai_pairs(Home(tmp_path), RlaifRecipe(), "sha256:new", 0) == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"rloo": {"epochs": 1}}, "rloo.epochs needs reward.epochs"),
        ({"rlaif": {"share": 1.0}}, "rlaif.share must lie in"),
        (
            {"rlaif": {"labels": "x"}, "dpo": {"epochs": 0}},
            "rlaif.labels needs joint.epochs, dpo.epochs",
        ),
        ({"reward": {"rank": 0}}, "reward.rank must lie in"),
        (
            {"reward": {"epochs": 1}, "rloo": {"epochs": 1, "max_new_tokens": 2000}},
            "max_new_tokens must be below",
        ),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(values: Any, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        recipe_from_dict(values)


def test_the_shipped_rlhf_recipe_trains_on_a_reward_model_in_place_of_dpo() -> None:
    recipe = read_recipe("rloo")
    assert (recipe.sft.epochs, recipe.dpo.epochs) == (2, 0)
    assert (recipe.reward.epochs, recipe.rloo.epochs) == (1, 1)


def test_by_default_nothing_of_this_is_done() -> None:
    recipe = recipe_from_dict({})
    assert (recipe.reward.epochs, recipe.rloo.epochs, recipe.rlaif.labels) == (0, 0, None)
