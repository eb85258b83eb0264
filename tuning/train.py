"""One training run, top to bottom: snapshot and recipe in, bundle out.

`run` is the algorithm; the stages that it calls are in `tuning.stages`. A run that was killed goes
on after the last finished stage, from the last checkpoint of the one it was in.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

from accelerate import PartialState

from engine.errors import InvalidInput
from engine.prompts.interface import ChatRenderer
from tuning.ai_labels import drawn_ai_pairs
from tuning.dataset import read_slice, read_training_data
from tuning.jobs.events import (
    BundlePublished,
    DataRead,
    Report,
    RewardModelMade,
    SearchLeftOut,
    StageLeftOut,
)
from tuning.methods.joint import read_contributions
from tuning.methods.reward_model import make_reward_model
from tuning.methods.stage import Stage
from tuning.publication import publish_adapter
from tuning.recipe import Recipe, fill_from_store
from tuning.rows import TrainingData
from tuning.search import Slice, choose_slice, read_search
from tuning.stages import SEARCHED, Rows, Setup, StageTrainer, set_up
from tuning.start_adapter import with_start
from tuning.step_reporter import StepReporter
from tuning.trainability import require_trainable
from tuning.training_run import TrainingRun


def run(job: TrainingRun, report: Report) -> str:
    """Train, publish and verify; returns the bundle's digest (in the first process, if several).

    A stage whose rows the snapshot does not have is left out, which is said in the events and in
    the manifest. Raises `InvalidInput` where no stage is left, or a value is of no use.
    """
    begun = time.monotonic()
    require_trainable(job.base.folder, job.recipe)
    job, adapter = with_start(job)
    setup = set_up(job, report)
    held_back = _hold_back(job, report)
    data = _read_data(job, setup.renderer, held_back)
    job = _with_store_values(job, data)
    report(_data_read(data))
    slice_rows = _slice_rows(job, setup.renderer, held_back)
    reward = _reward_model(job, setup, data)
    rows = _rows_by_stage(job.recipe, data, report)
    trainer = StageTrainer(job, setup, reward["reward_model"], slice_rows)
    for name, method in job.recipe.stages.items():
        if rows[name]:
            adapter = trainer.train(name, method, rows[name], adapter)
    assert adapter is not None, "at least one stage has rows"
    if not PartialState().is_main_process:
        return ""  # the first process publishes
    about = {
        "rows": {name: len(each) for name, each in rows.items()},  # 0: the stage was left out
        "evidence": read_contributions(job.folder / SEARCHED),
        "search": {
            "slice_conversations": len(held_back.conversations),
            "left_out": held_back.reason or None,
            "outcome": read_search(job.folder / SEARCHED),
        },
        "seconds": round(time.monotonic() - begun, 1),
        "number_format": asdict(setup.number_format),
        "kernels": setup.kernels.reason,
        **reward,
    }
    digest = publish_adapter(job, adapter, data, about)
    report(BundlePublished(bundle=digest))
    return digest


def _hold_back(job: TrainingRun, report: Report) -> Slice:
    """Draw the conversations that are held back to choose a learning rate by."""
    if not job.recipe.search.rates:
        return Slice()
    found = choose_slice(job.snapshot, job.recipe.search, job.recipe.seed)
    if found.reason:
        report(SearchLeftOut(reason=found.reason))
    return found


def _read_data(job: TrainingRun, renderer: ChatRenderer, held_back: Slice) -> TrainingData:
    """Render what the run trains on: the snapshot without the slice, and AI labels."""
    ai_pairs = drawn_ai_pairs(job.home, job.recipe.rlaif, job.snapshot.digest, job.recipe.seed)
    return read_training_data(
        renderer, job.snapshot, job.recipe, ai_pairs, without=held_back.conversations
    )


def _slice_rows(job: TrainingRun, renderer: ChatRenderer, held_back: Slice) -> Rows:
    """The rows of the joint method by which its learning rate is chosen; none without a slice."""
    if not held_back.conversations:
        return ()
    found = read_slice(renderer, job.snapshot, job.recipe, held_back.conversations)
    return job.recipe.joint.rows(found)


def _with_store_values(job: TrainingRun, data: TrainingData) -> TrainingRun:
    """The run with its recipe's "store" values replaced by those of the snapshot."""
    good, bad = data.good_and_bad
    flip_rate = job.snapshot.manifest["flip_rate"]
    recipe, origins = fill_from_store(
        job.recipe, job.recipe_origins, flip_rate=flip_rate, good=good, bad=bad
    )
    return replace(job, recipe=recipe, recipe_origins=origins)


def _data_read(data: TrainingData) -> DataRead:
    return DataRead(
        pairs=len(data.pairs.rows),
        answers=len(data.answers),
        lone_judgements=len(data.unpaired.rows),
        replayed=len(data.replay),
        ai_pairs=len(data.ai_pairs.rows),
        blocks=len(data.blocks),
        too_long=len(data.too_long),
        too_long_conversations=sorted(set(data.too_long)),
    )


def _reward_model(job: TrainingRun, setup: Setup, data: TrainingData) -> dict[str, Any]:
    """The digest of a reward model on people's pairs, None where not asked for; its accuracy."""
    if job.recipe.reward.epochs <= 0:
        return {"reward_model": None}
    reporter = StepReporter("reward", setup.report)
    stage = Stage("reward", job.folder / "reward", job.recipe.seed, setup.tokenizer, reporter)
    about = make_reward_model(
        job.base, job.snapshot, job.recipe, data.pairs.rows, stage, job.home.rewards
    )
    setup.report(RewardModelMade(**about))
    return about


def _rows_by_stage(recipe: Recipe, data: TrainingData, report: Report) -> dict[str, Rows]:
    """The rows of each stage; one without rows is reported.

    Raises `InvalidInput` where no stage has any.
    """
    rows = {name: method.rows(data) for name, method in recipe.stages.items()}
    reasons = {
        name: f"{name} needs {method.needs}"
        for name, method in recipe.stages.items()
        if not rows[name]
    }
    if len(reasons) == len(rows):
        raise InvalidInput(
            f"nothing to train on: {'; '.join(reasons.values())}; the snapshot's training side has"
            f" none that can be used{_examples_left_out(data)}"
        )
    for name, reason in reasons.items():
        report(StageLeftOut(stage=name, reason=reason))
    return rows


def _examples_left_out(data: TrainingData) -> str:
    reasons = {
        "longer than max_sequence_tokens": len(data.too_long),
        "a pair whose thoughts differ, while thoughts are not learnt": len(
            data.pairs.other_thoughts
        ),
    }
    told = [f"{count} {reason}" for reason, count in reasons.items() if count]
    return f" ({', '.join(told)})" if told else ""
