"""Adapters are found by the people who taught them, through earlier erasures too."""

from __future__ import annotations

import shutil

import pytest

from engine.home import Home
from engine.storage import folder_of
from tests.deploy.homes import HomeInUse
from tests.feedback_store.people import files_with, mark_old


@pytest.mark.integration
def test_retention_leaves_adapters_alone_and_later_finds_them_by_who_taught_them(
    any_home: HomeInUse,
) -> None:
    home = any_home
    ann, bob = home.people.speaks("ann"), home.people.speaks("bob")
    first = home.freeze()
    eve = home.people.speaks("eve")
    bundle = home.bundle(first, 1, promoted=True)
    mark_old(home.database, *ann.conversations, bob.conversations[0])
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
        mark_old(home.database, conversation)
        assert home.forgetting.forget_before(101.0)
    receipt = home.forgetting.forget(bob.id)
    assert receipt.bundles == (bundle,)
    assert (home.bundles_left(), home.jobs_left()) == (set(), set())


def test_a_bundle_is_found_by_a_conversation_through_what_stands_for_its_snapshot(
    home: HomeInUse,
) -> None:
    ann, bob = home.people.speaks("ann"), home.people.speaks("bob")
    bundle = home.bundle(home.freeze(), 1, promoted=True)
    mark_old(home.database, *ann.conversations)
    assert home.forgetting.forget_before(101.0)
    assert home.forgetting.forget_conversations([bob.conversations[1]]).bundles == (bundle,)
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
