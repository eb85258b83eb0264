"""The steps of an experiment on real data: import, snapshot, training, scoring of held-out answers.

Everything uses the product's own path: the importer, the store, the snapshot, the shipped recipes
and the engine with dense weights. Knows no statistics.
"""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.fast import FastEngine
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.prompts.interface import ChatRenderer
from engine.request import Score, ScoreRequest
from feedback_store.curation.decisions import Curation
from feedback_store.examples.split import split_of
from feedback_store.examples.types import Examples, Pair, TrainingExample
from feedback_store.formats import import_file
from feedback_store.snapshots.snapshot import Snapshot, freeze, open_snapshot
from feedback_store.storage.database import Database, database_url
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tuning.evaluation.preferences import PairScores, score_pairs
from tuning.jobs.events import JobEvent, StepDone
from tuning.recipe import Recipe, origins, read_recipe
from tuning.train import run
from tuning.training_run import TrainingRun

Kind = Literal["pairs", "demonstrations", "unpaired"]
DRAW_SEED = 0  # of the sample from a file; the runs' seeds change the training alone
SCORED_AT_ONCE = 8  # answers in a request, so that the engine can batch them
TRAINING_SIZES = (16, 64, 256, 700)
STEPS_TOLD = 10  # steps per line of progress


@dataclass(frozen=True, slots=True)
class Experiment:
    """A file, the kind of example that is read from it, and the recipes that are tried on it.

    `training`: how many examples to train on at most, where it is not the command's. `convert`
    writes a file that import reads from one that it does not read.
    """

    file: str
    kind: Kind
    recipes: Mapping[str, Recipe]
    training: int | None = None
    convert: Callable[[Path, Path], None] | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """The size of the sample from a file. Longer examples are left out whole."""

    training: int
    held_out: int
    training_tokens: int
    held_out_tokens: int


@dataclass(frozen=True, slots=True)
class Material:
    """The training and held-out examples of an experiment; `too_long` counts those left out."""

    snapshot: Snapshot
    training: Sequence[TrainingExample]
    held_out: Sequence[TrainingExample]
    too_long: int


def experiments() -> dict[str, Experiment]:
    """Return all experiments by name. Recipes are shipped ones, or those without a stage."""
    joint, auto, stages, kto = map(read_recipe, ("default", "auto", "sft-dpo", "kto"))
    sft_alone = replace(stages, dpo=replace(stages.dpo, epochs=0))
    both = {"joint (default)": joint, "auto": auto}
    gsm8k = "gsm8k_solutions_dev600.jsonl"
    return {
        "gsm8k": Experiment(gsm8k, "pairs", {**both, "SFT, then DPO": stages}),
        **{
            f"gsm8k-{count}": Experiment(gsm8k, "pairs", both, training=count)
            for count in TRAINING_SIZES
        },
        "oasst": Experiment("oasst_trees_dev.jsonl", "pairs", {**both, "SFT, then DPO": stages}),
        "dpo-zh": Experiment("llamafactory_dpo_zh_demo.json", "pairs", {"joint (default)": joint}),
        "cmath": Experiment(
            "cmath_dev_half.jsonl", "pairs", {"joint (default)": joint}, convert=cmath_pairs
        ),
        "seed-tasks": Experiment(
            "self_instruct_seed_tasks.jsonl",
            "demonstrations",
            {"joint (default)": joint, "SFT": sft_alone},
        ),
        "kto": Experiment(
            "llamafactory_kto_en_demo.json", "unpaired", {"joint (default)": joint, "KTO": kto}
        ),
    }


def cmath_pairs(source: Path, target: Path) -> None:
    """Write each CMATH question with its answer, and the next different one of as many digits.

    The file has no wrong answers. A number of the same length cannot be told by its length.
    """
    rows = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    pairs = []
    for number, row in enumerate(rows):
        others = [*rows[number + 1 :], *rows[:number]]
        wrong = (o["golden"] for o in others if _as_long(o["golden"], row["golden"]))
        pairs.append(
            {"prompt": row["input"], "chosen": row["golden"], "rejected": next(wrong, "?")}
        )
    lines = (json.dumps(pair, ensure_ascii=False) for pair in pairs)
    target.write_text("\n".join(lines), "utf-8")


def _as_long(one: str, other: str) -> bool:
    return one != other and len(one) == len(other)


def prepare(
    experiment: Experiment, home: Path, data: Path, renderer: ChatRenderer, sizes: Sizes
) -> Material:
    """Import the file into a new home and freeze a sample of its examples."""
    home.mkdir()
    database = Database(database_url(Home(home), None))
    file = data / experiment.file
    if experiment.convert is not None:
        experiment.convert(file, home / "converted.jsonl")
        file = home / "converted.jsonl"
    import_file(FeedbackStore(database), file)
    training_set = TrainingSet(EvidenceReader(database), Curation(database))
    training_set.refresh(reestimate=True)
    selected, found = training_set.load_examples()
    database.close()
    examples = sorted(found.of_kind(experiment.kind), key=_words)
    random.Random(DRAW_SEED).shuffle(examples)
    sides = {
        side: [e for e in examples if split_of(e.origin.conversation_id) == side]
        for side in ("train", "heldout")
    }
    count = sizes.training if experiment.training is None else experiment.training
    training, missed = _draw(sides["train"], count, sizes.training_tokens, renderer)
    held_out, missed_too = _draw(sides["heldout"], sizes.held_out, sizes.held_out_tokens, renderer)
    rows: dict[str, Any] = {experiment.kind: [*training, *held_out]}
    rows["flip_rate"] = found.flip_rate
    digest = freeze(Home(home).snapshots, Examples(**rows), last_event=selected.last_event)
    snapshot = open_snapshot(Home(home).snapshots, digest)
    return Material(snapshot, training, held_out, missed + missed_too)


def train(
    base: BaseModel,
    home: Path,
    material: Material,
    recipe: Recipe,
    folder: Path,
    kernel_cache: Path | None = None,
) -> str:
    """Run a recipe on the snapshot's training side; returns the bundle's digest."""
    job = TrainingRun(
        base=base,
        snapshot=material.snapshot,
        recipe=recipe,
        recipe_origins=origins(recipe.as_dict()),
        folder=folder,
        home=Home(home),
        kernel_cache=kernel_cache,
    )
    folder.mkdir(parents=True)
    with redirect_stdout(io.StringIO()):  # trl prints each step, but stdout is for the document
        return run(job, _tell)


def score_preferences(
    engine: FastEngine, pairs: Sequence[Pair], adapter: str | None
) -> list[PairScores]:
    """Score each pair under one adapter, which must be loaded."""
    return list(score_pairs(engine, pairs, {"candidate": adapter}))


def score_answers(
    engine: FastEngine, examples: Sequence[TrainingExample], adapter: str | None
) -> list[Score]:
    """Score each example's completion under one adapter, which must be loaded."""
    requests = [
        ScoreRequest(example.prompt, side.full_text, adapter, side.complete)
        for example in examples
        for side in example.sides
    ]
    return [score for some in _batches(requests) for score in engine.score(some)]


def _draw(
    examples: Sequence[TrainingExample], count: int, limit: int, renderer: ChatRenderer
) -> tuple[list[TrainingExample], int]:
    """Return the first `count` examples that fit, and how many before them did not."""
    drawn: list[TrainingExample] = []
    too_long = 0
    for example in examples:
        if len(drawn) == count:
            break
        if _tokens(example, renderer) <= limit:
            drawn.append(example)
        else:
            too_long += 1
    return drawn, too_long


def _tokens(example: TrainingExample, renderer: ChatRenderer) -> int:
    """Return the tokens of the prompt with the longest completion."""
    return max(
        len(renderer.pair(example.prompt, side.full_text, complete=side.complete).input_ids)
        for side in example.sides
    )


def _words(example: TrainingExample) -> list[str]:
    """Return the texts as sort key, since ids differ at each import."""
    texts = [side.full_text for side in example.sides]
    return [example.origin.conversation_id, *(m.content for m in example.prompt), *texts]


def _batches(requests: Sequence[ScoreRequest]) -> Iterator[Sequence[ScoreRequest]]:
    for begin in range(0, len(requests), SCORED_AT_ONCE):
        yield requests[begin : begin + SCORED_AT_ONCE]


def _tell(event: JobEvent) -> None:
    if not isinstance(event, StepDone):
        return
    step, steps = event.step, event.steps
    if step % STEPS_TOLD == 0 or step == steps:
        print(
            f"  {event.stage} step {step}/{steps} loss {event.loss:.3f}",
            file=sys.stderr,
            flush=True,
        )
