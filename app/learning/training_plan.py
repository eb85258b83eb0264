"""The plan of a training before it starts: its evidence, time and memory, and warnings.

The console's form and `burnish tune --plan` show the same plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deploy.gate.thresholds import read_thresholds
from deploy.rounds.stages import unchanged
from deploy.rounds.trigger import FEW_PAIRS
from engine.errors import InvalidInput
from engine.prompts.load import load_serving_renderer
from feedback_store.snapshots.snapshot import Snapshot, open_snapshot
from tuning.dataset import read_training_data
from tuning.memory_plan import MemoryUse, shape_of
from tuning.recipe import Recipe
from tuning.run_plan import RunPlan, measured_speed, plan_run, probed_speed
from tuning.trainability import require_trainable

if TYPE_CHECKING:
    from app.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second: of an earlier `job`, or, where that is None, by a short measurement."""

    tokens_per_second: float
    job: str | None


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A plan on one snapshot. Bytes of memory by use, without the process's libraries.

    `warnings` are sentences in English, which `app.texts.translated` translates.
    """

    snapshot: str
    pairs: int
    heldout_pairs: int
    run: RunPlan
    memory: tuple[MemoryUse, ...]
    free_bytes: int
    speed: Speed
    warnings: tuple[str, ...]

    @property
    def memory_bytes(self) -> int:
        """The sum of all uses."""
        return sum(use.nbytes for use in self.memory)

    @property
    def seconds(self) -> float:
        """The estimated time of all steps."""
        return self.run.seconds(self.speed.tokens_per_second)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "memory_bytes": self.memory_bytes, "seconds": self.seconds}


def plan_training(workspace: Workspace, recipe: Recipe) -> TrainingPlan:
    """Plan a training on the examples of now, which are frozen as the training would do.

    Raises `InvalidInput` where nothing can be trained, with the reason.
    """
    base = workspace.base
    require_trainable(base.folder, recipe)
    reads = any(method.example_kinds for method in recipe.stages.values())
    digest = workspace.take_snapshot(may_be_empty=not reads)
    snapshot = open_snapshot(workspace.home.snapshots, digest)
    renderer = load_serving_renderer(base.folder, base.digest, workspace.settings.model_cache)
    run = plan_run(recipe, read_training_data(renderer, snapshot, recipe))
    if not run.stages:
        raise InvalidInput(f"nothing to train on: {'; '.join(run.left_out)}")
    memory, free_bytes = _memory(workspace, recipe)
    pairs, heldout = len(snapshot.train.pairs), len(snapshot.heldout.pairs)
    warnings = _warnings(
        workspace, recipe, snapshot, run, short_of=sum(u.nbytes for u in memory) - free_bytes
    )
    speed = _speed(workspace, recipe)
    return TrainingPlan(digest, pairs, heldout, run, memory, free_bytes, speed, tuple(warnings))


def _warnings(
    workspace: Workspace, recipe: Recipe, snapshot: Snapshot, run: RunPlan, *, short_of: int
) -> Iterator[str]:
    """Yield what an operator should know before the start."""
    made = workspace.jobs.find_done(workspace.base.digest, snapshot.digest, recipe)
    if made is not None and made in workspace.registry.record().releases:
        yield unchanged(made)
    pairs = len(snapshot.train.pairs) + len(snapshot.heldout.pairs) + len(snapshot.gold.pairs)
    if pairs < FEW_PAIRS:
        yield f"{pairs} pairs are few: {FEW_PAIRS} make a first training worth trying"
    wanted = read_thresholds(workspace.settings.gate_thresholds).min_conversations
    heldout = len({pair.origin.conversation_id for pair in snapshot.heldout.pairs})
    if heldout < wanted:
        yield (
            f"{heldout} conversations are held out to judge the result by, and the gate asks for"
            f" {wanted}: it will say that there is not enough data"
        )
    yield from (f"{reason}: this stage is left out" for reason in run.left_out)
    if run.too_long:
        yield f"{run.too_long} conversations are longer than max_sequence_tokens and left out"
    if short_of > 0:
        yield "the memory that is free now does not suffice"
    if any(job.state == "running" for job in workspace.jobs.list()):
        yield "another tuning job runs: one runs at a time"


def _memory(workspace: Workspace, recipe: Recipe) -> tuple[tuple[MemoryUse, ...], int]:
    """The uses of memory, and the bytes that are free on the device that trains."""
    from engine.hardware import detect  # takes torch, as the two below
    from tuning.device_memory import free_memory, plan_of
    from tuning.number_format import ChosenFormat

    bf16 = str(detect().dtype).endswith("bfloat16")
    asked = recipe.number_format
    chosen = ChosenFormat(asked if asked != "auto" else "bf16" if bf16 else "fp32", "", {})
    free_bytes, card_bytes = free_memory()
    plan = plan_of(
        workspace.base.folder, recipe, chosen, free_bytes=free_bytes, card_bytes=card_bytes
    )
    return plan.parts, free_bytes


def _speed(workspace: Workspace, recipe: Recipe) -> Speed:
    """The speed of the newest job on the same base model, with weights held alike; or a probe."""
    for job in workspace.jobs.list():
        alike = workspace.jobs.recipe(job.id).get("weights") == recipe.weights
        if job.base_digest != workspace.base.digest or not alike:
            continue
        if (speed := measured_speed(workspace.jobs.events(job.id))) is not None:
            return Speed(speed, job.id)
    return Speed(_probe(workspace), None)


def _probe(workspace: Workspace) -> float:
    from tuning.number_format import TOKENS, probed_rows, time_formats

    shape = shape_of(str(workspace.base.folder))
    seconds = time_formats(shape.hidden_size, shape.mlp_size)
    rows = probed_rows(shape.hidden_size, shape.mlp_size)
    return probed_speed(shape, min(seconds.values()), TOKENS * rows * shape.hidden_size)
