"""Adapters that were really trained, on the embedded model: the gate tells good from bad.

People correct the base's long answers to their first sentence. A run on that is better than the
base. Runs on answers that are long, empty, repeated or refusals are then held against it. Where
some of the pairs point the wrong way, an adapter learns less, but not the opposite.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import pytest
import yaml

from app.demo.scripted_user import first_sentence
from deploy.gate.verdict import GateReport, judge_candidate
from engine.adapters.slots import AdapterSlots
from engine.fast import FastEngine
from engine.home import Home
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.request import GenerationRequest, SamplingParams, collect
from feedback_store.examples.split import split_of
from feedback_store.examples.types import Demonstration, Pair, Side, example_id
from tests.support.pairs import row
from tests.support.runs import frozen, origin, trained
from tuning.evaluation.evaluate import evaluate
from tuning.methods.dpo import DpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import Recipe

pytestmark = pytest.mark.slow

TRAINED, HELD_OUT = 32, 16
TRAINING_SIDE = [name for name in map(str, range(1_000)) if split_of(name) == "train"]
HARSH = Recipe(sft=SftRecipe(epochs=3, learning_rate=1e-3), dpo=DpoRecipe(epochs=0))


@dataclass(frozen=True)
class Scene:
    """An engine, what its base answers to everyday questions, and the better adapter."""

    home: Path
    base: BaseModel
    engine: FastEngine
    slots: AdapterSlots
    long: dict[str, str]  # question -> the base's answer
    good: str

    def report(self, candidate: str, incumbent: str | None) -> GateReport:
        held_out = pairs(self.long)[TRAINED:]
        with self.slots.hold(candidate), self.slots.hold(incumbent):
            return judge_candidate(
                evaluate(self.engine, held_out, candidate=candidate, incumbent=incumbent)
            )


def pairs(long: dict[str, str]) -> list[Pair]:
    """The first sentence of each answer over the whole of it."""
    return [
        row(question, short, text, rejected_complete=False, conversation=TRAINING_SIDE[number])
        for number, (question, text) in enumerate(long.items())
        if (short := first_sentence(text))
    ]


def answers_of(engine: FastEngine, questions: list[str]) -> dict[str, str]:
    """The base's greedy answers, where they have a sentence to keep."""
    sampling = SamplingParams(temperature=0, max_new_tokens=80)
    streams = engine.submit_many(
        [GenerationRequest((Message("user", question),), sampling) for question in questions]
    )
    texts = [collect(stream).text for stream in streams]
    told = {q: text for q, text in zip(questions, texts, strict=True) if first_sentence(text)}
    return dict(list(told.items())[: TRAINED + HELD_OUT])


@pytest.fixture(scope="module")
def scene(
    smollm: BaseModel, kernel_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    home = tmp_path_factory.mktemp("home")
    prompts = yaml.safe_load(resources.files("app.demo").joinpath("prompts.yaml").read_text())
    engine = FastEngine(smollm, kernel_cache=kernel_cache, quantization="int4")
    long = answers_of(engine, prompts["feedback"])
    assert len(long) == TRAINED + HELD_OUT
    good, _ = trained(home, smollm, frozen(home, pairs=pairs(long)[:TRAINED]), Recipe())
    slots = AdapterSlots(engine, smollm, Home(home).bundles)
    yield Scene(home, smollm, engine, slots, long, good)
    engine.close()


def test_an_adapter_that_learnt_what_people_want_is_better(scene: Scene) -> None:
    report = scene.report(scene.good, incumbent=None)
    assert report.verdict == "better", report.reason


@pytest.mark.parametrize("flipped_share", [0.2, 0.3], ids=["20% hostile", "30% flipped"])
def test_of_pairs_some_of_which_point_the_wrong_way_nothing_worse_than_the_base_is_learnt(
    scene: Scene, flipped_share: float
) -> None:
    clean = pairs(scene.long)[:TRAINED]
    wrong = set(random.Random(0).sample(range(TRAINED), round(flipped_share * TRAINED)))
    mixed = [_flipped(pair) if at in wrong else pair for at, pair in enumerate(clean)]
    bundle, _ = trained(scene.home, scene.base, frozen(scene.home, pairs=mixed), Recipe())
    report = scene.report(bundle, incumbent=None)
    assert report.gain.estimate >= 0  # the held-out pairs all point the right way
    assert {guard.name for guard in report.guards if guard.refused} <= {"length", "unfinished"}


def _flipped(pair: Pair) -> Pair:
    """The pair as somebody sees it who prefers the whole answer."""
    chosen, rejected = replace(pair.rejected, complete=True), pair.chosen
    return replace(
        pair,
        id=example_id("votes", (chosen, rejected), "votes", pair.origin.user_ids),
        chosen=chosen,
        rejected=rejected,
    )


def refusing(_long: str) -> Side:
    return Side("I'm sorry, but I can't help with that.", "", True, "", "imported", None)


def repeating(long: str) -> Side:
    return Side(f"{first_sentence(long)} " * 4, "", True, "", "imported", None)


def empty(_long: str) -> Side:
    return Side("...", "", True, "", "imported", None)


def endless(long: str) -> Side:
    return Side(long, "", False, "", "imported", None)


@pytest.mark.parametrize(
    ("spoil", "guards"),
    [
        (endless, {"length", "unfinished"}),
        (empty, {"empty"}),
        (repeating, {"repetition"}),
        (refusing, {"refusal"}),
    ],
)
def test_an_adapter_that_learnt_something_bad_is_refused_by_the_guard_for_it(
    scene: Scene, spoil: Callable[[str], Side], guards: set[str]
) -> None:
    demonstrations = []
    for number, (question, text) in enumerate(list(scene.long.items())[:TRAINED]):
        side = replace(spoil(text), answer_id=f"answer-{number}")
        demonstrations.append(
            Demonstration(
                example_id("demonstration", (side,), "vote", ("ann",)),
                (Message("user", question),),
                side,
                "vote",
                origin(TRAINING_SIDE[number]),
            )
        )
    snapshot = frozen(scene.home, demonstrations=demonstrations)
    bad, _ = trained(scene.home, scene.base, snapshot, HARSH)
    report = scene.report(bad, incumbent=scene.good)
    assert report.verdict == "not better"
    refused = {guard.name for guard in report.guards if guard.refused}
    assert refused & guards, report.reason
