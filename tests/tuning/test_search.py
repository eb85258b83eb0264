"""The search of a learning rate in a run of the tiny model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.storage import folder_of, read_manifest, write_atomically
from feedback_store.snapshots.snapshot import open_snapshot
from tests.support.pairs import snapshot_of
from tests.support.runs import SMALL
from tuning.jobs.events import JobEvent, SearchDone, SearchLeftOut, StepDone, TrialScored
from tuning.methods.dpo import DpoRecipe
from tuning.methods.joint import JointRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import Recipe
from tuning.recipe_sections import SearchRecipe
from tuning.search import choose_slice
from tuning.train import run
from tuning.training_run import TrainingRun

pytestmark = pytest.mark.integration

RATES = SearchRecipe(rates=2, lowest=1e-3, highest=1e-2, slice_share=0.25, least_conversations=3)
SEARCHED = Recipe(
    adapter=SMALL,
    joint=JointRecipe(epochs=2, batch_rows=4),
    sft=SftRecipe(epochs=0),
    dpo=DpoRecipe(epochs=0),
    search=RATES,
    number_format="fp32",
    max_sequence_tokens=200,
)


def searched(
    home: Path, base: BaseModel, recipe: Recipe = SEARCHED, pairs: int = 16
) -> tuple[TrainingRun, Callable[[], tuple[str, list[JobEvent]]]]:
    snapshot = open_snapshot(Home(home).snapshots, snapshot_of(home, pairs))
    job = TrainingRun(base, snapshot, recipe, {}, home / "job", Home(home))

    def go() -> tuple[str, list[JobEvent]]:
        events: list[JobEvent] = []
        return run(job, events.append), events

    return job, go


def test_the_rate_and_the_length_with_the_lowest_loss_on_the_slice_are_kept(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    job, go = searched(tmp_path, tiny_base)
    bundle, events = go()
    manifest = read_manifest(folder_of(Home(tmp_path).bundles, bundle))
    found = manifest["search"]
    conversations = len({p.origin.conversation_id for p in job.snapshot.train.pairs})
    assert found["slice_conversations"] == round(conversations / 4)
    assert manifest["evidence"]["pair"]["rows"] == conversations - found["slice_conversations"]
    points, chosen = found["outcome"]["points"], found["outcome"]["chosen"]
    most = found["outcome"]["most_steps"]
    assert [(p["learning_rate"], p["steps"]) for p in points[:2]] == [
        (1e-3, most // 2),
        (1e-2, most // 2),
    ]
    assert points[2]["steps"] == most
    assert chosen == min(points, key=lambda point: point["loss"])
    trials = [event for event in events if isinstance(event, TrialScored)]
    assert [t.loss for t in trials] == pytest.approx([p["loss"] for p in points], abs=1e-5)
    (done,) = (event for event in events if isinstance(event, SearchDone))
    assert (done.learning_rate, done.step) == (chosen["learning_rate"], chosen["steps"])


def test_the_slice_is_drawn_by_whole_conversations_and_always_alike(tmp_path: Path) -> None:
    snapshot = open_snapshot(Home(tmp_path).snapshots, snapshot_of(tmp_path, 40))
    names = snapshot.train.conversations
    first, again = (choose_slice(snapshot, RATES, seed=1) for _ in range(2))
    assert first == again
    assert first.conversations < names
    assert len(first.conversations) == round(len(names) / 4)
    assert choose_slice(snapshot, RATES, seed=2) != first


def test_a_slice_that_is_too_small_leaves_the_recipes_own_rate_and_says_so(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    few = replace(SEARCHED, search=replace(RATES, least_conversations=10))
    job, go = searched(tmp_path, tiny_base, few)
    bundle, events = go()
    (left_out,) = (event for event in events if isinstance(event, SearchLeftOut))
    assert "10 are wanted" in left_out.reason
    manifest = read_manifest(folder_of(Home(tmp_path).bundles, bundle))
    assert manifest["search"]["left_out"] == left_out.reason
    assert manifest["search"]["outcome"] is None
    assert manifest["evidence"]["pair"]["rows"] == len(job.snapshot.train.pairs)  # all of them


class Killed(Exception):
    pass


@pytest.mark.parametrize("scores", [0, 1, 2, 3])
def test_a_search_that_was_killed_goes_on_and_ends_alike(
    scores: int, tmp_path: Path, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed where a run was trained, before its score number `scores` was written."""
    _, whole = searched(tmp_path / "whole", tiny_base)
    expected, _ = whole()
    _, go = searched(tmp_path / "killed", tiny_base)
    written: list[Path] = []

    def dying(path: Path, content: bytes) -> None:
        if len(written) == scores:
            raise Killed
        written.append(path)
        write_atomically(path, content)

    with monkeypatch.context() as patched:
        patched.setattr("tuning.search.write_atomically", dying)
        with pytest.raises(Killed):
            go()
    resumed, events = go()
    manifests = [
        read_manifest(folder_of(Home(tmp_path / name).bundles, digest))
        for name, digest in (("whole", expected), ("killed", resumed))
    ]
    assert manifests[0]["search"] == manifests[1]["search"]
    assert manifests[0]["evidence"] == manifests[1]["evidence"]
    assert manifests[0]["files"] == manifests[1]["files"]  # the same adapter, byte by byte
    repeated = {e.stage for e in events if isinstance(e, StepDone)}
    assert len(repeated) <= 2


def test_a_search_killed_before_its_adapter_is_in_place_goes_on(
    tmp_path: Path, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, go = searched(tmp_path, tiny_base)
    rename = Path.rename

    def dying(self: Path, target: Path) -> Path:
        if target == job.folder / "joint" / "adapter":
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", dying)
        with pytest.raises(Killed):
            go()
    bundle, events = go()
    assert not [event for event in events if isinstance(event, StepDone)]  # nothing anew
    manifest = read_manifest(folder_of(Home(tmp_path).bundles, bundle))
    assert manifest["evidence"]["pair"]["rows"] > 0
