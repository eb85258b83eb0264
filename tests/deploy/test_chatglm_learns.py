"""Each ChatGLM in its published layout goes through the whole loop with tiny random weights.

Feedback in the store, pairs, a training run, the gate, the swap in a running engine, and back.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from deploy.export.formats import export_release
from deploy.loop import Loop, RoundRequest
from deploy.releases.promotion import Releases
from deploy.releases.registry import Registry
from deploy.rounds.store import RoundStore
from engine.adapters.slots import AdapterSlots
from engine.fast import FastEngine
from engine.home import Home
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.prompts.modes import make_template
from engine.request import ScoreRequest
from engine.storage import folder_of
from feedback_store.curation.decisions import Curation
from feedback_store.examples.split import split_of
from feedback_store.examples.types import Pair, Unpaired, example_id
from feedback_store.snapshots.taking import take_snapshot
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.helpers import answer
from tests.support.chatglm_models import WRITERS, write_tiny_chatglm
from tests.support.pairs import row
from tests.support.runs import frozen, origin, trained
from tuning.jobs.events import JobEvent, StepDone
from tuning.jobs.runner import Job, JobRunner
from tuning.methods.dpo import DpoRecipe
from tuning.methods.joint import JointRecipe
from tuning.methods.kto import KtoRecipe
from tuning.methods.orpo import OrpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import Recipe
from tuning.recipe_sections import AdapterRecipe

pytestmark = pytest.mark.integration

PLAIN = make_template("plain", ())
NAMES = [f"conversation-{number}" for number in range(100)]
CONVERSATIONS = [
    *[name for name in NAMES if split_of(name) == "train"][:6],
    *[name for name in NAMES if split_of(name) == "heldout"][:8],
]
WANTED = "hello."
RECIPE = Recipe(
    adapter=AdapterRecipe(rank=4, alpha=8),
    sft=SftRecipe(epochs=20, learning_rate=1e-2, batch_pairs=2),
    dpo=DpoRecipe(epochs=1, batch_pairs=2),
    number_format="fp32",
    max_sequence_tokens=200,
)


class JobsHere:
    """Stands for `JobRunner`: a job is run in this process, when it is started."""

    def __init__(self, home: Home, base: BaseModel) -> None:
        self._home, self._base = home, base

    def start(self, *, snapshot: str, recipe: Recipe, **_: Any) -> str:
        return trained(self._home.root, self._base, snapshot, recipe)[0]

    def wait(self, _job: str) -> Iterator[JobEvent]:
        return iter(())

    def result(self, job: str) -> str:
        return job

    def get(self, job: str) -> Job:
        return Job(job, "done", "", job, None, 0.0)

    def folder(self, job: str) -> Path:
        return folder_of(self._home.jobs, job)

    def list(self) -> list[Any]:
        return []


@pytest.mark.parametrize("family", WRITERS)
def test_feedback_changes_the_greedy_answer_and_rollback_restores_it(
    family: str, tmp_path: Path, database: Database, registry: Registry, kernel_cache: Path
) -> None:
    write_tiny_chatglm(tmp_path / "model", family)
    base = resolve(str(tmp_path / "model"), tmp_path / "cache")
    home, store, curation = Home(tmp_path / "home"), FeedbackStore(database), Curation(database)
    home.root.mkdir()
    training_set = TrainingSet(EvidenceReader(database), curation)
    loop = Loop(
        home=home,
        base=base,
        training_set=training_set,
        take_snapshot=partial(take_snapshot, home.snapshots, training_set, curation),
        registry=registry,
        jobs=cast(JobRunner, JobsHere(home, base)),
        rounds=RoundStore(database),
        min_new_pairs=3,
    )
    with contextlib.closing(FastEngine(base, kernel_cache=kernel_cache)) as engine:
        slots = AdapterSlots(engine, base, home.bundles)

        def greedy() -> str:
            return answer(engine, "ni hao 1?", adapter=slots.live, max_new_tokens=20).text

        before = greedy()
        assert WANTED not in before
        for number, name in enumerate(CONVERSATIONS):
            _correct(store, name, f"ni hao {number}?")
        result = loop.run(engine, slots, RoundRequest(RECIPE, {}), lambda event: None)
        assert result.report is not None
        # A model of random weights does not learn a word without forgetting what little it says
        assert "drift" in {guard.name for guard in result.report.guards if guard.refused}
        assert registry.get(str(result.bundle)).report["verdict"] == "not better"
        releases = Releases(registry, home.bundles, base)
        slots.activate(releases.promote(str(result.bundle), force=True, reason="to see it").bundle)
        learnt, unlearnt = engine.score(
            [ScoreRequest((Message("user", "ni hao 1?"),), WANTED, a) for a in (slots.live, None)]
        )
        assert learnt.total > unlearnt.total + 5
        assert greedy() != before
        slots.activate(releases.rollback().bundle)
        assert greedy() == before
    _check_export(base, home, str(result.bundle), tmp_path / "merged")


def _correct(store: FeedbackStore, conversation: str, question: str) -> None:
    """An answer in a conversation, and its correction."""
    turn = store.add_turn(
        user_id="ann", question=question, template=PLAIN, conversation_id=conversation
    )
    answer_id = store.begin_answer(
        turn.id, base_digest="base", adapter_digest=None, sampling={}, seed=0
    )
    store.finish_answer(answer_id, status="done", text="no.", complete=True)
    store.correct(answer_id, "ann", WANTED)


def _check_export(base: BaseModel, home: Home, bundle: str, target: Path) -> None:
    """The merged model is a checkpoint in the published layout, too."""
    export_release(base, home.bundles, bundle, target)
    ours, theirs = (
        set(load_file(next(folder.glob("*.safetensors")))) for folder in (target, base.folder)
    )
    assert ours == theirs
    configs = [json.loads((f / "config.json").read_text()) for f in (target, base.folder)]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("family", ["chatglm1", "glm4"])
def test_other_methods_and_bits_train_them_too(family: str, tmp_path: Path) -> None:
    """The joint objective and KTO packed, ORPO padded, on weights held in few bits."""
    write_tiny_chatglm(tmp_path / "model", family)
    base = resolve(str(tmp_path / "model"), tmp_path / "cache")
    home = Home(tmp_path / "home")
    home.root.mkdir()
    rows = [row(f"q {n}", WANTED, "no.", conversation=f"c{n}") for n in range(3)]
    lone = [_judged(rows[0], good=True), _judged(rows[1], good=False)]
    recipe = replace(
        RECIPE,
        joint=JointRecipe(epochs=1, least_steps=0, batch_rows=5),
        sft=SftRecipe(epochs=0),
        dpo=DpoRecipe(epochs=0),
        kto=KtoRecipe(epochs=1, batch_answers=2, desirable_weight=1.0, undesirable_weight=1.0),
        orpo=OrpoRecipe(epochs=1, batch_pairs=2),
        weights="int8",
    )
    bundle, events = trained(home.root, base, frozen(home.root, pairs=rows, unpaired=lone), recipe)
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    assert len(losses) == 4  # one of the joint objective and of KTO, two of ORPO
    assert all(0 < loss < 100 for loss in losses)
    with safe_open(folder_of(home.bundles, bundle) / "adapter_model.safetensors", "pt") as file:
        learnt = [file.get_tensor(key) for key in file.keys() if ".lora_B." in key]  # noqa: SIM118
    assert all(matrix.abs().max() > 0 for matrix in learnt)


def _judged(pair: Pair, *, good: bool) -> Unpaired:
    """One side of a pair with a thumb alone."""
    side = pair.chosen if good else pair.rejected
    own_id = example_id("unpaired", (side,), "vote", ("ann",))
    return Unpaired(own_id, pair.prompt, side, good, "vote", origin(f"lone-{good}"))
