"""A forgotten person is gone from every file, and so is every adapter that learnt from them."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from deploy import forgetting as forgetting_module
from deploy.forgetting import BACKUPS, Forgetting, Receipt
from engine.errors import BurnishError, Conflict, UnknownId
from engine.home import Home
from engine.storage import folder_of, list_digests, publish, read_manifest
from feedback_store.ai_feedback.ai_pairs import open_ai_pairs, publish_ai_pairs
from feedback_store.snapshots.snapshot import verify_snapshot
from tests.deploy.homes import HomeInUse, traces
from tests.feedback_store.ai_feedback.test_ai_pairs import pair as ai_pair
from tests.feedback_store.people import all_rows, examples_of, files_with, without
from tests.helpers import make_bundle
from tuning.ai_labels import labels_of
from tuning.recipe import Recipe

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
    receipt = home.forgetting.forget_conversations([gone])
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
        home.forgetting.forget_conversations([gone])


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


def test_the_live_release_gives_way_to_its_ancestor_before_anything_is_waited_for(
    home: HomeInUse, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.people.speaks("bob")
    ancestor = home.bundle(home.freeze(), 1, promoted=True)
    person = home.people.speaks("ann")
    learnt = home.bundle(home.freeze(), 2, promoted=True)
    live_then: list[str | None] = []
    monkeypatch.setattr(
        Forgetting, "_end_jobs", lambda *_: live_then.append(home.registry.live().bundle)
    )
    home.forgetting.forget(person.id)
    assert live_then == [ancestor]
    change = home.registry.history()[0]
    assert (change.action, change.bundle, change.previous) == ("retire", ancestor, learnt)
    assert change.note == forgetting_module.REASON
