"""The search of the joint method's learning rate and length, on a slice of the training side.

Some training conversations are held back. Runs with rising learning rates are scored on them as
they train, hopeless ones are stopped (`tuning.successive_halving`), and the adapter of the best
point is kept. So few examples are not overfitted, and many are not left half learnt. Each point
stays in the folder of its rate until the search is over: a search that was killed goes on.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from engine.storage import canonical_json, digest_json, write_atomically
from feedback_store.snapshots.snapshot import Snapshot
from tuning.jobs.events import Report, SearchDone, TrialScored
from tuning.methods.joint import CONTRIBUTIONS, JointRecipe
from tuning.methods.joint_loss import SliceScore
from tuning.recipe_sections import SearchRecipe
from tuning.successive_halving import Halving, Point, geometric_rates, halve

SCORE, POINT = "score.json", "at-{steps}"
# A learning rate, the steps to reach, and where to leave the adapter -> its score on the slice
TrainTo = Callable[[float, int, Path], SliceScore]


@dataclass(frozen=True, slots=True)
class Slice:
    """The training conversations that are held back, or why there are none."""

    conversations: frozenset[str] = frozenset()
    reason: str = ""


def choose_slice(snapshot: Snapshot, search: SearchRecipe, seed: int) -> Slice:
    """Draw the conversations of the slice; the draw depends on their ids and the seed alone."""
    names = snapshot.train.conversations
    count = min(round(search.slice_share * len(names)), search.most_conversations)
    if count < search.least_conversations:
        return Slice(
            reason=f"{len(names)} training conversations leave {count} to choose by, and"
            f" {search.least_conversations} are wanted: the recipe's own learning rate is taken"
        )
    drawn = sorted(names, key=lambda name: digest_json([seed, name]))[:count]
    return Slice(frozenset(drawn))


def search_rate(
    folder: Path,
    search: SearchRecipe,
    method: JointRecipe,
    rows: int,
    train_to: TrainTo,
    report: Report,
) -> dict[str, Any]:
    """Search, and leave the best point's adapter in `folder / "adapter"`.

    Returns the search as plain values, for the bundle's manifest. `rows` are those of an epoch.
    """
    rates = geometric_rates(search.lowest, search.highest, search.rates)
    batch = method.batch_rows * PartialState().num_processes
    most_steps = max(1, math.ceil(method.epochs_of(rows) * math.ceil(rows / batch)))

    def reach(rate: float, steps: int) -> SliceScore:
        score = _score_at(folder, rate, steps, train_to)
        report(TrialScored(learning_rate=rate, step=steps, **asdict(score)))
        return score

    found = halve(rates, most_steps, reach, lambda score: score.loss)
    document = _document(found, most_steps)
    best = found.best
    report(SearchDone(learning_rate=best.learning_rate, step=best.steps, steps=most_steps))
    if PartialState().is_main_process:
        write_atomically(folder / "search.json", canonical_json(document))
        kept = _point(folder, best.learning_rate, best.steps)
        shutil.copyfile(kept / CONTRIBUTIONS, folder / CONTRIBUTIONS)  # again, if killed here
        (kept / "adapter").rename(folder / "adapter")  # the last: it says that the stage is done
        for rate in rates:
            shutil.rmtree(trial_folder(folder, rate))
    PartialState().wait_for_everyone()
    return document


def read_search(folder: Path) -> dict[str, Any] | None:
    """The result of `search_rate` in a finished stage's folder; None without a search."""
    path = folder / "search.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else None


def trial_folder(folder: Path, rate: float) -> Path:
    """The folder of a rate's run, with its checkpoints and its points."""
    return folder / f"rate-{rate:g}"


def _score_at(folder: Path, rate: float, steps: int, train_to: TrainTo) -> SliceScore:
    """The score of a point, computed unless it is there from before the search was killed."""
    point = _point(folder, rate, steps)
    if not point.is_dir():
        temporary = point.with_name(f"{point.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        score = train_to(rate, steps, temporary / "adapter")
        if PartialState().is_main_process:
            write_atomically(temporary / SCORE, json.dumps(asdict(score)).encode())
            temporary.rename(point)
        PartialState().wait_for_everyone()
    return SliceScore(**json.loads((point / SCORE).read_text("utf-8")))


def _document(found: Halving[SliceScore], most_steps: int) -> dict[str, Any]:
    def plain(point: Point[SliceScore]) -> dict[str, Any]:
        return {
            "learning_rate": point.learning_rate,
            "steps": point.steps,
            **_rounded(asdict(point.score)),
        }

    return {
        "most_steps": most_steps,
        "points": [plain(point) for point in found.points],
        "chosen": plain(found.best),
    }


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 5) for name, value in values.items()}


def _point(folder: Path, rate: float, steps: int) -> Path:
    return trial_folder(folder, rate) / POINT.format(steps=steps)
