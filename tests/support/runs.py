"""Training runs of the tiny model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.home import Home
from engine.models.catalogue import BaseModel
from feedback_store.examples.types import Demonstration, Examples, Origin, Pair, Unpaired
from feedback_store.snapshots.snapshot import freeze, open_snapshot
from tuning.jobs.events import JobEvent
from tuning.methods.dpo import DpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import Recipe
from tuning.recipe_sections import AdapterRecipe
from tuning.train import run
from tuning.training_run import TrainingRun

SMALL = AdapterRecipe(rank=2, alpha=4)


OFF = SftRecipe(epochs=0)


NO_DPO = DpoRecipe(epochs=0)


QUICK = Recipe(
    adapter=SMALL,
    sft=SftRecipe(epochs=1),
    dpo=DpoRecipe(epochs=1),
    number_format="fp32",  # two runs are compared, and what is faster is measured anew by each
    max_sequence_tokens=200,
)


Events = list[JobEvent]


def origin(conversation: str) -> Origin:
    return Origin(conversation, "hash", (1,), ("ann",))


def frozen(
    home: Path,
    *,
    pairs: Sequence[Pair] = (),
    unpaired: Sequence[Unpaired] = (),
    demonstrations: Sequence[Demonstration] = (),
    flip_rate: float | None = None,
) -> str:
    """Freeze examples in a home; returns the snapshot's digest."""
    examples = Examples(
        pairs=list(pairs),
        unpaired=list(unpaired),
        demonstrations=list(demonstrations),
        flip_rate=flip_rate,
    )
    return freeze(Home(home).snapshots, examples, last_event=2)


def trained(
    home: Path,
    base: BaseModel,
    snapshot: str,
    recipe: Recipe,
    origins: dict[str, str] | None = None,
) -> tuple[str, Events]:
    """The bundle's digest and the events of one run."""
    events: Events = []
    job = TrainingRun(
        base=base,
        snapshot=open_snapshot(Home(home).snapshots, snapshot),
        recipe=recipe,
        recipe_origins=origins or {},
        folder=home / f"job-{len(list(home.iterdir()))}",
        home=Home(home),
    )
    return run(job, events.append), events
