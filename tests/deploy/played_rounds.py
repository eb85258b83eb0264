"""Rounds in which tuning and judging are played, and people who correct answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from deploy.loop import Loop, LoopResult, RoundRequest
from engine.adapters.slots import AdapterSlots
from engine.prompts.modes import make_template
from engine.request import Engine, GenerationRequest, Score, ScoreRequest
from engine.serving.stream import QueuedStream
from feedback_store.examples.split import split_of
from feedback_store.storage.store import FeedbackStore
from tests.support.scripted_engine import ScriptedEngine
from tests.support.voices import Voice, sensible
from tuning.recipe import Recipe, recipe_from_dict

DPO_ALONE = recipe_from_dict({"sft": {"epochs": 0}, "dpo": {"epochs": 1}})
PLAIN = make_template("plain", ())
NAMES = [f"conversation-{number}" for number in range(100)]
TRAIN = [name for name in NAMES if split_of(name) == "train"]
HELDOUT = [name for name in NAMES if split_of(name) == "heldout"]


class Judge(ScriptedEngine):
    """How the adapter and the base like "Better." answers; both answer prompts sensibly."""

    def __init__(self, adapter_prefers_better: bool, base_prefers_better: bool) -> None:
        super().__init__({None: Voice(answers=sensible)})
        self._prefers = {True: adapter_prefers_better, False: base_prefers_better}

    def submit_many(self, requests: Sequence[GenerationRequest]) -> list[QueuedStream]:
        return super().submit_many([replace(request, adapter=None) for request in requests])

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [
            Score((-2.0,))
            if r.completion in ("Better.", "Worse.")
            and (r.completion == "Better.") != self._prefers[r.adapter is not None]
            else Score((-1.0,))
            for r in requests
        ]


def answered(
    store: FeedbackStore, name: str, user: str = "ann", base: str = "base", text: str = "Worse."
) -> str:
    """An answer in a conversation of its own."""
    turn = store.add_turn(
        user_id=user, question=f"Q of {name}", template=PLAIN, conversation_id=name
    )
    answer_id = store.begin_answer(
        turn.id, base_digest=base, adapter_digest=None, sampling={}, seed=0
    )
    store.finish_answer(answer_id, status="done", text=text, complete=True)
    return answer_id


def correct(
    store: FeedbackStore,
    *conversations: str,
    better: str = "Better.",
    worse: str = "Worse.",
    user: str = "ann",
) -> None:
    """One correction in each conversation."""
    for name in conversations:
        store.correct(answered(store, name, user, text=worse), user, better)


def run(
    loop: Loop,
    judge: Judge | None,
    slots: AdapterSlots | None,
    *,
    recipe: Recipe | None = None,
    force: bool = False,
) -> LoopResult:
    """One round; without engine and slots where nothing is to be judged."""
    engine, slots = cast(Engine, judge), cast(AdapterSlots, slots)
    request = RoundRequest(recipe or Recipe(), {}, forced=force)
    return loop.run(engine, slots, request, lambda event: None)
