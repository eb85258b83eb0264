"""A forgotten person is gone from every file, and so is every adapter that learnt from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from deploy import forgetting as forgetting_module
from deploy.forgetting import BACKUPS, Forgetting, Receipt
from deploy.releases.promotion import Releases
from deploy.releases.registry import Registry
from engine.errors import BurnishError, Conflict, StorageFull, UnknownId
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.storage import digest_json, folder_of, list_digests, publish, read_manifest
from feedback_store.ai_feedback.ai_pairs import open_ai_pairs, publish_ai_pairs
from feedback_store.privacy.erasure import unfinished_erasures
from feedback_store.snapshots.snapshot import verify_snapshot
from feedback_store.storage import tables
from feedback_store.storage.database import Database
from tests.feedback_store.ai_feedback.test_ai_pairs import pair as ai_pair
from tests.feedback_store.conftest import postgresql  # noqa: F401 - a fixture
from tests.feedback_store.people import People, Person, all_rows, examples_of, files_with, without
from tests.helpers import make_bundle
from tests.postgresql import Server
from tests.support.databases import migrated_sqlite
from tuning.ai_labels import labels_of
from tuning.jobs.runner import JobRunner
from tuning.recipe import Recipe


class HomeInUse:
    """A home folder in which people speak, snapshots are frozen and bundles are published."""

    def __init__(self, folder: Path, url: str, base: BaseModel, models: Path) -> None:
        self.folder = folder
        self.base = base
        self.database = Database(url)
        self.people = People(self.database)
        self.registry = Registry(self.database)
        self.jobs = JobRunner(Home(folder), models)
        self.snapshots, self.bundles = Home(folder).snapshots, Home(folder).bundles
        self.forgetting = Forgetting(
            home=Home(folder), database=self.database, registry=self.registry, jobs=self.jobs
        )
        self.releases = Releases(self.registry, self.bundles, base)

    def freeze(self) -> str:
        return self.people.freeze(self.snapshots)

    def bundle(self, snapshot: str, seed: int, *, promoted: bool = False) -> str:
        """A bundle trained on a snapshot, with the job that made it."""
        bundle = make_bundle(self.bundles, self.base, seed, manifest={"snapshot": snapshot})
        self.finished_job(snapshot, bundle)
        self.registry.add(bundle, {"verdict": "better"})
        if promoted:
            self.registry.promote(bundle, self.registry.live())
        return bundle

    def finished_job(self, snapshot: str, bundle: str) -> Path:
        """A job's folder, with a checkpoint and a log that quote what was learnt."""
        folder = self.jobs.folder(digest_json(["job", snapshot, bundle]))
        (folder / "checkpoint").mkdir(parents=True)
        files = folder_of(self.snapshots, snapshot).rglob("*.jsonl")
        texts = "".join(path.read_text() for path in files)
        (folder / "checkpoint" / "state").write_text(texts)
        (folder / "log.txt").write_text(texts)
        (folder / "progress.jsonl").write_text("")
        (folder / "result.json").write_text(json.dumps({"state": "done", "bundle": bundle}))
        (folder / "manifest.json").write_text(json.dumps({"snapshot": snapshot, "started_at": 0.0}))
        return folder

    def bundles_left(self) -> set[str]:
        return set(list_digests(self.bundles))

    def jobs_left(self) -> set[str | None]:
        return {job.bundle for job in self.jobs.list()}


@pytest.fixture
def home(tmp_path: Path, tiny_base: BaseModel) -> Iterator[HomeInUse]:
    folder = tmp_path / "home"
    folder.mkdir()
    home = HomeInUse(folder, migrated_sqlite(folder), tiny_base, tmp_path / "models")
    yield home
    home.database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_home(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_base: BaseModel
) -> Iterator[HomeInUse]:
    if request.param == "sqlite":
        yield request.getfixturevalue("home")
        return
    (tmp_path / "home").mkdir()
    server: Server = request.getfixturevalue("postgresql")
    home = HomeInUse(tmp_path / "home", server.create_migrated(), tiny_base, tmp_path / "models")
    yield home
    home.database.close()


def traces(home: HomeInUse, person: Person) -> list[str]:
    """Files and tables that still tell of a person."""
    rows = all_rows(home.database, derived=True)
    tables_left = [name for name, each in rows.items() if without(rows, person)[name] != each]
    return files_with(home.folder, person.marks) + tables_left


def mark_old(home: HomeInUse, *conversations: str) -> None:
    with home.database.write() as connection:
        where = tables.turns.c.conversation_id.in_(conversations)
        connection.execute(update(tables.turns).where(where).values(created_at=100.0))


# A person


def test_ai_labels_and_reward_models_of_a_person_go_with_what_learnt_from_them(
    home: HomeInUse,
) -> None:
    """Ann's unjudged answers are in no snapshot, only in the set of labels."""
    bob = home.people.speaks("bob").id
    snapshot = home.freeze()
    ann = home.people.speaks("ann").id
    labels = Home(home.folder).ai_labels
    both = publish_ai_pairs(
        labels, [ai_pair(1, ann), ai_pair(2, bob)], snapshot=snapshot, judge="j", about={}
    )
    bobs = publish_ai_pairs(labels, [ai_pair(2, bob)], snapshot=snapshot, judge="k", about={})
    for number, digest in enumerate((both, bobs)):
        recipe = {"rlaif": {"labels": digest}}
        about = {"snapshot": snapshot, "recipe": recipe}
        make_bundle(home.bundles, home.base, number, manifest=about)
    publish(Home(home.folder).rewards, lambda _: {"snapshot": snapshot})
    on_both = next(b for b in home.bundles_left() if uses(home, b) == both)

    receipt = home.forgetting.forget(ann)
    assert receipt.bundles == (on_both,)
    assert len(list_digests(Home(home.folder).rewards)) == 1  # Bob's snapshot is as it was
    left = [open_ai_pairs(labels, digest).pairs for digest in list_digests(labels)]
    assert sorted(pair.origin.user_ids for pairs in left for pair in pairs) == [(bob,), (bob,)]

    home.forgetting.forget(bob)
    assert (list_digests(labels), list_digests(Home(home.folder).rewards)) == ([], [])
    assert home.bundles_left() == set()


def test_an_imported_adapter_stays_and_what_went_on_from_a_persons_adapter_goes(
    home: HomeInUse,
) -> None:
    """An imported one has seen nothing of this home; the two runs have seen Bob alone."""
    home.people.speaks("bob")
    later = home.freeze()
    ann = home.people.speaks("ann").id
    from_ann = home.bundle(home.freeze(), 1)
    imported: dict[str, Any] = {"snapshot": None, "origin": "imported", "recipe": {}}
    theirs = make_bundle(home.bundles, home.base, 2, manifest=imported)
    went_on = {
        start: make_bundle(
            home.bundles,
            home.base,
            number,
            manifest={"snapshot": later, "recipe": {"adapter": {"start": start}}},
        )
        for number, start in enumerate((from_ann, theirs), start=3)
    }
    receipt = home.forgetting.forget(ann)
    assert set(receipt.bundles) == {from_ann, went_on[from_ann]}
    assert home.bundles_left() == {theirs, went_on[theirs]}


def uses(home: HomeInUse, bundle: str) -> str | None:
    """The AI labels that a bundle was trained on."""
    return labels_of(read_manifest(folder_of(home.bundles, bundle))["recipe"])


@pytest.mark.integration
def test_of_five_people_who_are_forgotten_one_by_one_nothing_is_left(any_home: HomeInUse) -> None:
    home = any_home
    early = [home.people.speaks(name) for name in ("ann", "bob")]
    first = home.freeze()
    on_first = home.bundle(first, 1, promoted=True)
    late = [home.people.speaks(name) for name in ("cem", "dan", "eve")]
    second = home.freeze()
    on_second = home.bundle(second, 2, promoted=True)
    everybody = [*late, *early]
    for person in everybody:
        assert traces(home, person), "the canaries are looked for in the wrong place"

    for number, person in enumerate(everybody):
        rows = all_rows(home.database)
        examples = {s: examples_of(home.snapshots, s) for s in list_digests(home.snapshots)}
        receipt = home.forgetting.forget(person.id)
        assert traces(home, person) == []
        # Of everybody else everything is as it was
        if number < 4:  # with the last one goes the template that all shared
            assert all_rows(home.database) == without(rows, person)
        for old, new in receipt.snapshots.items():
            rest = [e for e in examples[old] if person.id not in e.origin.user_ids]
            assert (examples_of(home.snapshots, new) if new else []) == rest
        for kept in examples.keys() - receipt.snapshots.keys():
            assert verify_snapshot(home.snapshots, kept) == []
        # The second bundle goes with the first person who spoke late, the first one with Ann
        expected = {0: (on_second,), 3: (on_first,)}.get(number, ())
        assert (receipt.bundles, receipt.retrain) == (expected, bool(expected))
        left = {on_first} if number < 3 else set()
        assert (home.bundles_left(), home.jobs_left()) == (left, left)
        assert receipt.live == home.registry.live().bundle == (on_first if number < 3 else None)
    assert not any(all_rows(home.database).values())
    assert list_digests(home.snapshots) == []


def test_what_learnt_from_a_person_is_never_served_again_even_from_a_backup(
    home: HomeInUse,
) -> None:
    person = home.people.speaks("ann")
    bundle = home.bundle(home.freeze(), 1, promoted=True)
    backup = home.folder.parent / "backup"
    shutil.copytree(home.bundles, backup)
    home.forgetting.forget(person.id)
    assert home.registry.tainted() == {bundle: forgetting_module.REASON}
    with pytest.raises(BurnishError):  # it is not there
        home.releases.promote(bundle, force=True)
    shutil.copytree(backup, home.bundles, dirs_exist_ok=True)
    with pytest.raises(Conflict, match="tainted; retrain"):
        home.releases.promote(bundle, force=True)
    assert home.registry.live().bundle is None


def test_after_a_restore_forgetting_again_finds_everything_again(home: HomeInUse) -> None:
    ann, _ = home.people.speaks("ann"), home.people.speaks("bob")
    bundle = home.bundle(home.freeze(), 1)
    backup = home.folder.parent / "backup"
    for name in ("snapshots", "bundles"):
        shutil.copytree(home.folder / name, backup / name)
    first = home.forgetting.forget(ann.id)
    for name in ("snapshots", "bundles"):
        shutil.copytree(backup / name, home.folder / name, dirs_exist_ok=True)
    home.people.curation.set_consent(ann.id, True)  # a database that knows her again
    second = home.forgetting.forget(ann.id)
    assert (second.snapshots, second.bundles) == (first.snapshots, (bundle,))
    assert traces(home, ann) == []


def test_the_receipt_says_what_was_done_and_names_nobody(home: HomeInUse) -> None:
    person, _ = home.people.speaks("ann"), home.people.speaks("bob")
    old = home.freeze()
    bundle = home.bundle(old, 1, promoted=True)
    receipt = home.forgetting.forget(person.id)
    (new,) = list_digests(home.snapshots)
    assert receipt == Receipt(
        1, receipt.rows, 3, {old: new}, (bundle,), live=None, retrain=True, backups=BACKUPS
    )
    assert receipt.rows["turns"] == 4
    assert not any(mark in str(receipt) for mark in person.marks)
    assert "Backups" in receipt.backups


def test_nobody_is_forgotten_twice_and_a_stranger_never(home: HomeInUse) -> None:
    person = home.people.speaks("ann")
    home.forgetting.forget(person.id)
    for unknown in (person.id, "stranger"):
        with pytest.raises(UnknownId):
            home.forgetting.forget(unknown)
    again = home.people.speaks("ann")  # who comes back can be forgotten again
    assert home.forgetting.forget(again.id).number == 2


def test_one_erasure_at_a_time(home: HomeInUse, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob = home.people.speaks("ann"), home.people.speaks("bob")

    def meanwhile(*_: object) -> None:
        with pytest.raises(Conflict, match="being forgotten"):
            home.forgetting.forget(bob.id)

    monkeypatch.setattr(home.registry, "taint", meanwhile)
    home.forgetting.forget(ann.id)
    assert traces(home, bob) != []


# A conversation


def test_a_conversation_goes_with_what_learnt_from_it(any_home: HomeInUse) -> None:
    home = any_home
    bob = home.people.speaks("bob")
    kept = home.freeze()
    on_bobs = home.bundle(kept, 1, promoted=True)
    ann = home.people.speaks("ann")
    old = home.freeze()
    on_both = home.bundle(old, 2, promoted=True)
    gone = ann.conversations[0]
    receipt = home.forgetting.forget_conversation(gone)
    (new,) = set(list_digests(home.snapshots)) - {kept}
    assert receipt == Receipt(1, receipt.rows, 1, {old: new}, (on_both,), on_bobs, retrain=True)
    assert (home.bundles_left(), home.jobs_left()) == ({on_bobs}, {on_bobs})
    assert home.registry.tainted() == {on_both: forgetting_module.DELETED_REASON}
    assert not any(mark in str(receipt) for mark in ann.marks)
    assert files_with(home.folder, [gone]) == []
    assert gone not in str(all_rows(home.database, derived=True))
    # The rest of what she said is as it was
    assert {e.origin.conversation_id for e in examples_of(home.snapshots, new)} == {
        *ann.conversations[1:],
        *bob.conversations,
    }
    with pytest.raises(UnknownId):
        home.forgetting.forget_conversation(gone)


def test_several_conversations_are_one_erasure(home: HomeInUse) -> None:
    ann, bob = home.people.speaks("ann"), home.people.speaks("bob")
    home.freeze()
    receipt = home.forgetting.forget_conversations([ann.conversations[1], bob.conversations[1]])
    assert (receipt.number, receipt.conversations, len(receipt.snapshots)) == (1, 2, 1)
    assert files_with(home.folder, [ann.conversations[1], bob.conversations[1]]) == []


# Jobs


def test_a_job_that_is_learning_from_a_person_is_killed_and_leaves_nothing(home: HomeInUse) -> None:
    person, _ = home.people.speaks("ann"), home.people.speaks("bob")
    snapshot = home.freeze()
    job = home.jobs.start(
        base_name=str(home.base.folder),
        base_digest=home.base.digest,
        snapshot=snapshot,
        recipe=Recipe(),
        recipe_origins={},
    )
    process = home.jobs._processes[job]
    assert home.jobs.get(job).state == "running"
    home.forgetting.forget(person.id)
    assert process.wait() == -15  # it was told to end, and did not end by itself
    assert (home.jobs.list(), home.bundles_left()) == ([], set())
    assert not home.jobs.folder(job).exists()


# A crash at any moment


class Crash(BaseException):
    """Nothing may catch it, as nothing catches a power cut."""


def crash_at(monkeypatch: pytest.MonkeyPatch, home: HomeInUse, place: int) -> list[str]:
    """Let the n-th step of forgetting crash before it does anything; returns the steps so far.

    A folder is half deleted then: without its manifest, nothing lists it any more.
    """
    steps: list[str] = []

    def crashing(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            steps.append(name)
            if len(steps) == place:
                if name == "rmtree":
                    (arguments[0] / "manifest.json").unlink(missing_ok=True)
                raise Crash
            return step(*arguments, **options)

        return run

    for owner, name in (
        (forgetting_module, "rewrite_snapshots"),
        (forgetting_module, "save_erasure"),
        (home.registry, "taint"),
        (home.database, "vacuum"),
        (Path, "rename"),
        (shutil, "rmtree"),
    ):
        monkeypatch.setattr(owner, name, crashing(name, getattr(owner, name)))
    return steps


@pytest.mark.integration
@pytest.mark.parametrize("what", ["person", "conversation"])
def test_a_crash_at_any_step_is_made_good_by_forgetting_again(
    tmp_path: Path, tiny_base: BaseModel, what: str
) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    home = HomeInUse(origin, migrated_sqlite(origin), tiny_base, tmp_path / "models")
    home.people.speaks("bob")
    home.bundle(home.freeze(), 1, promoted=True)
    person = home.people.speaks("ann")
    home.bundle(home.freeze(), 2, promoted=True)
    home.database.close()

    def forget(home: HomeInUse) -> Receipt:
        if what == "person":
            return home.forgetting.forget(person.id)
        return home.forgetting.forget_conversation(person.conversations[0])

    def left(home: HomeInUse) -> list[str]:
        gone = person.conversations[:1]
        return traces(home, person) if what == "person" else files_with(home.folder, gone)

    outcomes = set()
    for place in range(1, 200):
        folder = tmp_path / f"home-{place}"
        shutil.copytree(origin, folder)
        url = f"sqlite:///{Home(folder).database}"
        home = HomeInUse(folder, url, tiny_base, tmp_path / "models")
        with pytest.MonkeyPatch.context() as patched:
            steps = crash_at(patched, home, place)
            try:
                receipt = forget(home)
                crashed = False
            except Crash:
                crashed = True
        if crashed:
            assert unfinished_erasures(home.database), steps
            receipt = forget(home)
        assert left(home) == [], steps
        assert list(folder.rglob(".tmp-*")) == [], steps
        assert unfinished_erasures(home.database) == []
        outcomes.add((str(receipt), *sorted(home.bundles_left()), *sorted(home.registry.tainted())))
        home.database.close()
        shutil.rmtree(folder)
        if not crashed:
            break
    assert {*steps} == {"rewrite_snapshots", "save_erasure", "taint", "vacuum", "rename", "rmtree"}
    assert len(outcomes) == 1  # whatever crashed, the end is the same


def test_what_a_crash_broke_off_is_finished_before_somebody_else_is_forgotten(
    home: HomeInUse, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = home.people.speaks("ann"), home.people.speaks("bob")
    home.freeze()
    with monkeypatch.context() as patched, pytest.raises(Crash):
        crash_at(patched, home, 1)
        home.forgetting.forget(ann.id)
    # A server that still runs learns at once that the examples are gone
    assert {u for p in home.people.pairs() for u in p.origin.user_ids} == {bob.id}
    assert home.forgetting.forget(bob.id).number == 2
    assert traces(home, ann) == traces(home, bob) == []
    assert home.forgetting.finish() == []


def test_a_full_disk_while_forgetting_is_told_and_made_good_later(
    home: HomeInUse, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = home.people.speaks("ann")

    def full() -> None:
        raise StorageFull("not saved: database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(home.database, "vacuum", full)
        with pytest.raises(StorageFull):
            home.forgetting.forget(person.id)
    (receipt,) = home.forgetting.finish()
    assert receipt.number == 1
    assert traces(home, person) == []


# Lineage through earlier erasures


@pytest.mark.integration
def test_retention_leaves_adapters_alone_and_later_finds_them_by_who_taught_them(
    any_home: HomeInUse,
) -> None:
    home = any_home
    ann, bob = home.people.speaks("ann"), home.people.speaks("bob")
    first = home.freeze()
    eve = home.people.speaks("eve")
    bundle = home.bundle(first, 1, promoted=True)
    mark_old(home, *ann.conversations, bob.conversations[0])
    receipt = home.forgetting.forget_before(101.0)
    assert receipt is not None
    assert (receipt.conversations, receipt.bundles, receipt.retrain) == (4, (), False)
    assert files_with(Home(home.folder).snapshots, [ann.canary, bob.conversations[0]]) == []
    assert (home.bundles_left(), home.registry.live().bundle) == ({bundle}, bundle)
    assert home.forgetting.forget_before(101.0) is None
    # Eve was never in it; of Ann no snapshot knows any more, but the bundle was made from her words
    assert home.forgetting.forget(eve.id).bundles == ()
    assert home.forgetting.forget(ann.id).bundles == (bundle,)
    assert home.registry.live().bundle is None


def test_a_bundle_is_found_through_the_snapshots_that_stand_for_its_own(home: HomeInUse) -> None:
    """Bob stays in the snapshot when Ann's old conversation leaves it."""
    ann, bob = home.people.speaks("ann"), home.people.speaks("bob")
    bundle = home.bundle(home.freeze(), 1, promoted=True)
    for conversation in ann.conversations[:2]:  # twice, so that the chain has two links
        mark_old(home, conversation)
        assert home.forgetting.forget_before(101.0)
    receipt = home.forgetting.forget(bob.id)
    assert receipt.bundles == (bundle,)
    assert (home.bundles_left(), home.jobs_left()) == (set(), set())


def test_a_bundle_is_found_by_a_conversation_through_what_stands_for_its_snapshot(
    home: HomeInUse,
) -> None:
    ann, bob = home.people.speaks("ann"), home.people.speaks("bob")
    bundle = home.bundle(home.freeze(), 1, promoted=True)
    mark_old(home, *ann.conversations)
    assert home.forgetting.forget_before(101.0)
    assert home.forgetting.forget_conversation(bob.conversations[1]).bundles == (bundle,)
    assert home.bundles_left() == set()


@pytest.mark.parametrize("snapshot", ["gone", "damaged"])
def test_a_bundle_that_nobody_can_say_what_it_learnt_from_is_not_trusted(
    home: HomeInUse, snapshot: str
) -> None:
    home.people.speaks("bob")
    digest = home.freeze()
    bundle = home.bundle(digest, 1, promoted=True)
    folder = folder_of(home.snapshots, digest)
    if snapshot == "gone":
        shutil.rmtree(folder)
    else:
        (folder / "train" / "pairs.jsonl").write_text("{}\n")
    receipt = home.forgetting.forget(home.people.speaks("ann").id)
    assert receipt.bundles == (bundle,)
    assert home.registry.live().bundle is None


def test_a_bundle_without_a_readable_manifest_does_not_stop_the_forgetting(home: HomeInUse) -> None:
    person = home.people.speaks("ann")
    bundle = home.bundle(home.freeze(), 1)
    (folder_of(home.bundles, bundle) / "manifest.json").write_text("[]")
    assert home.forgetting.forget(person.id).bundles == (bundle,)
    assert home.bundles_left() == set()
