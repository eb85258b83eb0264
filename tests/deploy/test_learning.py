"""Which snapshot froze a statement, and which releases learnt from it and were live."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.forgetting import Forgetting
from deploy.releases.learning import Learning, kinds_trained_on
from deploy.releases.registry import Registry
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.storage import folder_of
from feedback_store.storage.database import Database
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.people import People
from tests.helpers import make_bundle
from tuning.jobs.runner import JobRunner

TRAIN, OTHER, HELDOUT = "conversation-0", "conversation-2", "conversation-1"
CORRECTED = 1  # the number of the first event


class HomeInUse:
    """A home folder in which Ann corrects answers."""

    def __init__(self, folder: Path, base: BaseModel, database: Database) -> None:
        self.folder, self.base, self.database = folder, base, database
        self.people = People(database)
        self.registry = Registry(database)
        self.learning = Learning(Home(folder), database, self.registry)
        self._talk = Conversations(self.people.store)

    def corrects(self, conversation: str) -> None:
        answer = self._talk.ask(f"{conversation}?", conversation=conversation)
        self.people.store.correct(answer, "ann", f'A better answer, "event_ids":[7] of {answer}.')

    def freeze(self) -> str:
        return self.people.freeze(Home(self.folder).snapshots)

    def release(self, snapshot: str, seed: int, **recipe: Any) -> str:
        manifest = {"snapshot": snapshot, "recipe": recipe}
        bundle = make_bundle(Home(self.folder).bundles, self.base, seed, manifest=manifest)
        self.registry.add(bundle, {"verdict": "better"})
        return bundle

    def promote(self, bundle: str) -> None:
        self.registry.promote(bundle, self.registry.live())

    def learnt(self, event: int = CORRECTED) -> list[tuple[str, bool, bool]]:
        """Each release that learnt from a statement, whether it was ever live, and is live."""
        releases = self.learning.of([event])[event].releases
        return [(each.bundle, each.live_at is not None, each.is_live) for each in releases]


@pytest.fixture
def home(tmp_path: Path, tiny_base: BaseModel, database: Database) -> Iterator[HomeInUse]:
    yield HomeInUse(tmp_path, tiny_base, database)


def test_a_statement_is_followed_to_the_release_that_is_live(home: HomeInUse) -> None:
    home.corrects(TRAIN)
    assert home.learning.of([CORRECTED])[CORRECTED].snapshot is None
    first = home.freeze()
    home.corrects(OTHER)
    second = home.freeze()
    lineages = home.learning.of([CORRECTED, 2, 3])
    assert {n: each.snapshot for n, each in lineages.items()} == {1: first, 2: second, 3: None}
    old, new = home.release(first, 1), home.release(second, 2)
    assert home.learnt() == [(old, False, False), (new, False, False)]
    home.promote(old)
    home.promote(new)
    assert home.learnt() == [(old, True, False), (new, True, True)]
    assert home.learnt(2) == [(new, True, True)]


def test_what_is_held_out_or_of_another_kind_is_not_learnt_from(home: HomeInUse) -> None:
    home.corrects(TRAIN)
    home.corrects(HELDOUT)
    snapshot = home.freeze()
    judged = home.release(snapshot, 1, sft={"epochs": 0}, dpo={"epochs": 0}, kto={"epochs": 1})
    learnt = home.release(snapshot, 2)
    assert [bundle for bundle, *_ in home.learnt()] == [learnt]
    assert home.learnt(2) == []
    assert home.learning.of([2])[2].snapshot == snapshot
    assert judged != learnt


@pytest.mark.parametrize(
    ("recipe", "kinds"),
    [
        ({}, {"pairs", "demonstrations"}),
        ({"kto": {"epochs": 1}}, {"pairs", "demonstrations", "unpaired"}),
        ({"dpo": {"epochs": 0}, "sft": {"answers": "demonstrations"}}, {"demonstrations"}),
        ({"dpo": {"epochs": 0}, "sft": {"answers": "chosen"}}, {"pairs"}),
        ({"sft": {"epochs": 0}}, {"pairs"}),
        ({"sft": {"epochs": 0}, "dpo": {"epochs": 0}, "orpo": {"epochs": 1}}, {"pairs"}),
        ({"sft": {"epochs": 0}, "dpo": {"epochs": 0}}, set()),
    ],
)
def test_a_recipe_trains_on_some_kinds(recipe: dict[str, Any], kinds: set[str]) -> None:
    assert kinds_trained_on(recipe) == kinds


def test_a_release_stays_known_when_retention_rewrites_its_snapshot(
    home: HomeInUse, tmp_path: Path
) -> None:
    home.corrects(OTHER)
    between = time.time()
    home.corrects(TRAIN)
    bundle = home.release(home.freeze(), 1)
    forgetting = Forgetting(
        home=Home(home.folder),
        database=home.database,
        registry=home.registry,
        jobs=JobRunner(Home(home.folder), tmp_path / "models"),
    )
    assert forgetting.forget_before(between) is not None
    assert [name for name, *_ in home.learnt(2)] == [bundle]
    assert home.learnt(CORRECTED) == []  # nobody can tell any more


def test_a_snapshot_that_cannot_be_read_is_passed_over(home: HomeInUse) -> None:
    home.corrects(TRAIN)
    damaged = home.freeze()
    home.corrects(OTHER)
    whole = home.freeze()
    (folder_of(Home(home.folder).snapshots, damaged) / "train" / "pairs.jsonl").unlink()
    assert home.learning.of([CORRECTED])[CORRECTED].snapshot == whole
