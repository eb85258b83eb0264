"""The record of a release is appended to, read back whole, and its states are derived from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert

from deploy.releases.events import (
    EVENT_NAMES,
    Activated,
    CanaryFigures,
    CanaryStarted,
    Judged,
    Promoted,
    Registered,
    ReleaseEvent,
    Retired,
    RolledBack,
    Tainted,
    document_of,
    event_of,
    name_of,
)
from deploy.releases.record import derive_record
from deploy.releases.registry import LiveRelease, Registry, release_events
from feedback_store.storage.database import Database
from tests.deploy.first_registry import make_registry

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
ARMS = {"live": {"conversations": 40, "up": 20, "down": 20}, "candidate": {"up": 5, "down": 1}}
EVERY_KIND: tuple[ReleaseEvent, ...] = (
    Registered(bundle=A, parent=B, snapshot=C, recipe={"seed": 1}, sources={"pairs/votes": 3}),
    Judged(bundle=A, report={"verdict": "better"}),
    Promoted(bundle=A, actor="ann", generation=1, previous=None, overridden="not better"),
    RolledBack(bundle=None, generation=2, previous=A, reason="worse"),
    Retired(bundle=None, generation=3, previous=B, reason="forgotten"),
    Tainted(bundle=A, reason="forgotten"),
    Activated(bundle=A, actor="server one", generation=1),
    CanaryStarted(bundle=A, plan={"share": 0.2}),
    CanaryFigures(bundle=A, arms=ARMS, decision="promote"),
)


def test_every_kind_of_event_is_read_back_as_it_was_written() -> None:
    assert {type(event) for event in EVERY_KIND} == set(EVENT_NAMES)
    for event in EVERY_KIND:
        read = event_of(name_of(event), event.bundle, event.actor, 0.0, document_of(event))
        assert read == event


def test_the_record_keeps_every_event_in_its_order(registry: Registry, database: Database) -> None:
    appended = [
        e for e in EVERY_KIND if isinstance(e, Registered | Judged | CanaryStarted | CanaryFigures)
    ]
    for event in appended:
        registry.append(event)
    assert list(registry.events()) == appended
    assert list(Registry(database).events()) == appended  # by another process


def test_an_event_of_a_newer_version_is_passed_over(registry: Registry, database: Database) -> None:
    registry.add(A, {})
    with database.write() as connection:
        row = {"at": 1.0, "kind": "of tomorrow", "bundle": A, "actor": "", "document": {}}
        connection.execute(insert(release_events).values(**row))
    registry.add(A, {"verdict": "better"})
    assert [name_of(event) for event in registry.events()] == ["judged", "judged"]


def test_how_a_release_was_made_is_recorded_once(registry: Registry) -> None:
    for seconds in (10.0, 99.0):
        registry.register(Registered(bundle=A, seconds=seconds))
    registered = registry.get(A).registered
    assert registered is not None
    assert registered.seconds == 10.0
    assert len(registry.events()) == 1


def test_the_state_of_a_release_is_derived_from_its_events_alone(registry: Registry) -> None:
    registry.register(Registered(bundle=A, origin="imported"))
    registry.add(A, {"verdict": "better"})
    registry.promote(A, registry.live(), "it is kinder", actor="ann", overridden="not better")
    registry.append(CanaryFigures(bundle=A, arms=ARMS, decision="running"))
    registry.append(CanaryFigures(bundle=A, arms=ARMS, decision="promote"))
    registry.report_server("one", 1, A)
    registry.report_server("one", 1, A)  # a heartbeat is no news
    registry.taint([A], "forgotten")
    assert derive_record(registry.events()) == registry.record()
    release = registry.get(A)
    assert (release.origin, release.tainted) == ("imported", "forgotten")
    assert release.canary is not None
    assert release.canary.decision == "promote"
    retired, promoted = registry.history()
    assert (promoted.actor, promoted.note, promoted.overridden) == (
        "ann",
        "it is kinder",
        "not better",
    )
    assert (retired.action, retired.bundle, retired.note) == ("retire", None, "forgotten")
    assert [name_of(event) for event in registry.events(A)] == [
        "registered",
        "judged",
        "promote",
        "canary",
        "canary",
        "activated",
        "tainted",
        "retire",
    ]


def test_the_newest_untainted_ancestor_takes_over(registry: Registry) -> None:
    """A, B and C were live one after the other; B and C learnt from who is forgotten."""
    for bundle in (A, B, C):
        registry.add(bundle, {})
        registry.promote(bundle, registry.live())
    assert registry.taint([C, B], "forgotten") == LiveRelease(A, 4)
    assert [type(event) for event in registry.events(C)] == [Judged, Promoted, Tainted, Retired]


@pytest.mark.parametrize("bundle", [None, A])
def test_a_server_that_starts_on_the_base_model_has_activated_nothing(
    registry: Registry, bundle: str | None
) -> None:
    registry.report_server("one", 0, bundle)
    assert len(registry.events()) == (bundle is not None)


def test_an_older_home_keeps_its_history_as_events(tmp_path: Path) -> None:
    """Version deploy_0003 as Burnish 0.1 left it, whose clock was set back before generation 2."""
    database = Database(f"sqlite:///{tmp_path / 'burnish.db'}")
    statements = (
        "CREATE TABLE taints (bundle VARCHAR(71) NOT NULL PRIMARY KEY, reason TEXT NOT NULL,"
        " at FLOAT NOT NULL)",
        f"""INSERT INTO releases VALUES ('{A}', '{{"verdict": "better"}}', 10.0),"""
        f""" ('{B}', '{{"verdict": "not better"}}', 30.0)""",
        f"INSERT INTO live VALUES (1, '{A}', 3)",
        f"INSERT INTO release_history VALUES (1, 'promote', '{A}', NULL, 'better', 20.0),"
        f" (2, 'promote', '{B}', '{A}', 'forced', 15.0), (3, 'retire', '{A}', '{B}', 'gone', 40.0)",
        f"INSERT INTO taints VALUES ('{B}', 'gone', 40.0)",
    )
    make_registry(database, "deploy_0003", statements)
    registry = Registry(database)
    assert [name_of(event) for event in registry.events()] == [
        "judged",
        "promote",
        "promote",
        "judged",
        "retire",
        "tainted",
    ]
    assert [(c.generation, c.action, c.note, c.at) for c in registry.history()] == [
        (3, "retire", "gone", 40.0),
        (2, "promote", "forced", 15.0),
        (1, "promote", "better", 20.0),
    ]
    assert [(r.bundle, r.report["verdict"], r.created_at) for r in registry.list()] == [
        (B, "not better", 30.0),
        (A, "better", 10.0),
    ]
    assert registry.tainted() == {B: "gone"}
    assert registry.rollback(registry.live()) == LiveRelease(None, 4)
    database.close()
