"""From a verdict to what running servers serve, and back again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.releases import promotion as release
from deploy.releases.promotion import Follower, Releases
from deploy.releases.registry import LiveRelease, Registry
from engine.adapters.slots import AdapterSlots
from engine.errors import Conflict, EngineFailure, InvalidBundle, InvalidInput, UnknownId
from engine.models.catalogue import BaseModel
from engine.reference import ReferenceEngine
from tests.helpers import make_bundle
from tests.support.waiting import wait_until


@pytest.fixture
def releases(registry: Registry, bundles: Path, tiny_base: BaseModel) -> Releases:
    return Releases(registry, bundles, tiny_base)


@pytest.fixture
def better(registry: Registry, bundles: Path, tiny_base: BaseModel) -> Callable[[int], str]:
    """Make a bundle that the gate found better."""

    def make(seed: int) -> str:
        digest = make_bundle(bundles, tiny_base, seed)
        registry.add(digest, {"verdict": "better"})
        return digest

    return make


@contextmanager
def following(registry: Registry, slots: AdapterSlots) -> Iterator[Follower]:
    follower = Follower(registry, slots)
    follower.start()
    try:
        yield follower
    finally:
        follower.stop()


def damage(bundles: Path, digest: str) -> None:
    """Flip one bit of the weights."""
    path = bundles / digest.removeprefix("sha256:") / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


# Promoting


@pytest.mark.parametrize("report", [{"verdict": "not better"}, {"verdict": "not enough data"}, {}])
def test_only_force_promotes_what_the_gate_did_not_find_better(
    releases: Releases,
    registry: Registry,
    bundles: Path,
    tiny_base: BaseModel,
    report: dict[str, str],
) -> None:
    bundle = make_bundle(bundles, tiny_base)
    registry.add(bundle, report)
    with pytest.raises(Conflict, match="force it"):
        releases.promote(bundle)
    with pytest.raises(InvalidInput, match="needs a reason"):
        releases.promote(bundle, force=True, reason=" ")
    assert registry.live() == LiveRelease(None, 0)
    live = releases.promote(bundle, force=True, reason="it is kinder", actor="ann")
    assert live == registry.live() == LiveRelease(bundle, 1)
    change = registry.history()[0]
    told = (change.actor, change.note, change.overridden)
    assert told == ("ann", "it is kinder", str(report.get("verdict")))


def test_what_the_gate_found_better_is_promoted(
    releases: Releases, registry: Registry, better: Callable[[int], str]
) -> None:
    bundle = better(1)
    live = releases.promote(bundle, reason="a gain", actor="loop")
    assert live == registry.live() == LiveRelease(bundle, 1)
    change = registry.history()[0]
    assert (change.actor, change.note, change.overridden) == ("loop", "a gain", None)


@pytest.mark.parametrize("force", [False, True])
def test_a_damaged_bundle_is_never_promoted(
    releases: Releases, registry: Registry, bundles: Path, better: Callable[[int], str], force: bool
) -> None:
    bundle = better(1)
    damage(bundles, bundle)
    with pytest.raises(InvalidBundle, match=r"adapter_model.safetensors differs"):
        releases.promote(bundle, force=force, reason="")
    assert registry.live() == LiveRelease(None, 0)


def test_a_bundle_that_was_never_judged_is_unknown(
    releases: Releases, bundles: Path, tiny_base: BaseModel
) -> None:
    with pytest.raises(UnknownId):
        releases.promote(make_bundle(bundles, tiny_base), force=True, reason="why not")


# Waiting for promotion


def test_the_newest_release_that_is_better_than_what_is_live_waits(
    releases: Releases, registry: Registry, bundles: Path, better: Callable[[int], str]
) -> None:
    assert releases.waiting() is None
    first, second = better(1), better(2)
    assert releases.waiting() == second
    releases.promote(second)
    # Both were judged against the base model; `first` has no incumbent in its report
    registry.add(first, {"verdict": "better", "incumbent": None})
    assert releases.waiting() is None
    registry.add(first, {"verdict": "better", "incumbent": second})
    assert releases.waiting() == first
    registry.add(first, {"verdict": "not better", "incumbent": second})
    assert releases.waiting() is None


def test_what_was_live_once_is_tainted_or_gone_does_not_wait(
    releases: Releases, registry: Registry, bundles: Path, better: Callable[[int], str]
) -> None:
    rolled_back, tainted, gone = better(1), better(2), better(3)
    releases.promote(rolled_back)
    releases.rollback()
    registry.taint([tainted], "it knew too much")
    shutil.rmtree(bundles / gone.removeprefix("sha256:"))
    assert releases.waiting() is None


# Rolling back


def test_a_rollback_restores_what_was_live_before(
    releases: Releases, registry: Registry, better: Callable[[int], str]
) -> None:
    first, second = better(1), better(2)
    releases.promote(first)
    releases.promote(second)
    assert releases.rollback().bundle == first
    assert releases.rollback().bundle is None
    with pytest.raises(Conflict, match="base model is live"):
        releases.rollback()


@pytest.mark.parametrize("harm", ["deleted", "damaged"])
def test_a_rollback_to_a_bundle_that_is_gone_changes_nothing(
    releases: Releases, registry: Registry, bundles: Path, better: Callable[[int], str], harm: str
) -> None:
    first, second = better(1), better(2)
    releases.promote(first)
    live = releases.promote(second)
    if harm == "deleted":
        shutil.rmtree(bundles / first.removeprefix("sha256:"))
    else:
        damage(bundles, first)
    with pytest.raises(Conflict, match=f"cannot roll back to {first}"):
        releases.rollback()
    assert registry.live() == live
    assert len(registry.history()) == 2


# Following


def test_a_server_follows_promotion_and_rollback(
    releases: Releases,
    registry: Registry,
    engine: ReferenceEngine,
    tiny_base: BaseModel,
    bundles: Path,
    better: Callable[[int], str],
) -> None:
    slots = AdapterSlots(engine, tiny_base, bundles)
    bundle = better(1)
    with following(registry, slots) as follower:
        moves: tuple[tuple[Callable[[], LiveRelease], str | None], ...] = (
            (lambda: releases.promote(bundle), bundle),
            (releases.rollback, None),
        )
        for move, expected in moves:
            moved = move()
            assert releases.wait_until_served(moved, timeout_seconds=60) == 1
            assert slots.live == expected
            (server,) = registry.servers()
            assert (server.id, server.bundle) == (follower.server_id, expected)
    assert registry.servers() == []


def test_a_server_that_starts_later_serves_the_live_release_at_once(
    releases: Releases,
    registry: Registry,
    engine: ReferenceEngine,
    tiny_base: BaseModel,
    bundles: Path,
    better: Callable[[int], str],
) -> None:
    live = releases.promote(better(1))
    slots = AdapterSlots(engine, tiny_base, bundles)
    with following(registry, slots):
        assert slots.live == live.bundle


def test_every_server_follows(
    releases: Releases,
    registry: Registry,
    engine: ReferenceEngine,
    tiny_base: BaseModel,
    bundles: Path,
    better: Callable[[int], str],
) -> None:
    other_engine = ReferenceEngine(tiny_base)
    both = [AdapterSlots(e, tiny_base, bundles) for e in (engine, other_engine)]
    with following(registry, both[0]), following(registry, both[1]):
        live = releases.promote(better(1))
        assert releases.wait_until_served(live, timeout_seconds=10) == 2
        assert [slots.live for slots in both] == [live.bundle] * 2
    other_engine.close()


def test_a_release_that_a_server_refuses_is_taken_back_with_the_reason(
    releases: Releases,
    registry: Registry,
    engine: ReferenceEngine,
    tiny_base: BaseModel,
    bundles: Path,
    better: Callable[[int], str],
) -> None:
    good, bad = better(1), better(2)
    releases.promote(good)
    slots = AdapterSlots(engine, tiny_base, bundles)
    with following(registry, slots):
        assert slots.live == good
        damage(bundles, bad)
        registry.promote(bad, registry.live())  # past `Releases`, which would have looked
        wait_until(lambda: registry.live().generation >= 3, seconds=10)
        assert registry.live() == LiveRelease(good, 3)
        assert releases.wait_until_served(registry.live(), timeout_seconds=10) == 1
        assert slots.live == good
    change = registry.history()[0]
    assert (change.action, change.bundle, change.previous) == ("rollback", good, bad)
    assert "refused by a server" in change.note
    assert "adapter_model.safetensors differs" in change.note


def test_whoever_waits_for_a_refused_release_is_told_why(
    releases: Releases,
    registry: Registry,
    engine: ReferenceEngine,
    tiny_base: BaseModel,
    bundles: Path,
    better: Callable[[int], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(release, "FOLLOW_SECONDS", 60)  # the server looks once, when it starts
    bundle = better(1)
    wanted = releases.promote(bundle)
    damage(bundles, bundle)
    follower = Follower(registry, AdapterSlots(engine, tiny_base, bundles))
    follower.start()
    with pytest.raises(EngineFailure, match=r"refused by a server.*safetensors differs"):
        releases.wait_until_served(wanted)
    follower.stop()


def test_where_nothing_was_ever_released_there_is_nothing_to_wait_for(
    releases: Releases, registry: Registry
) -> None:
    assert releases.wait_until_served(registry.live()) == 0


def test_waiting_for_a_server_that_does_not_follow_ends(
    releases: Releases, registry: Registry, better: Callable[[int], str]
) -> None:
    wanted = releases.promote(better(1))
    assert releases.wait_until_served(wanted) == 0  # nobody runs
    registry.report_server("slow", wanted.generation - 1, None)
    with pytest.raises(EngineFailure, match="1 servers have not followed"):
        releases.wait_until_served(wanted, timeout_seconds=0.3)
