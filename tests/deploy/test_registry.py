"""One pointer, moved by one at a time, with a history; and servers that say what they serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.releases import registry as registry_module
from deploy.releases.events import Judged
from deploy.releases.registry import LiveRelease, Registry
from engine.errors import BurnishError, Conflict, UnknownId
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from tests.deploy.promotions import A, B, C, promote
from tests.feedback_store.conftest import postgresql, sqlite_url  # noqa: F401 - a fixture
from tests.postgresql import Server
from tests.support.databases import migrated_sqlite


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with all tables and no row."""
    if request.param == "sqlite":
        return migrated_sqlite(tmp_path)
    server: Server = request.getfixturevalue("postgresql")
    return server.create_migrated()


def test_the_base_model_is_live_at_first(registry: Registry) -> None:
    assert registry.live() == LiveRelease(None, 0)
    assert registry.history() == ()


def test_a_promotion_moves_the_pointer_and_is_remembered(registry: Registry) -> None:
    promote(registry, A, B)
    assert registry.live() == LiveRelease(B, 2)
    told = [(c.generation, c.action, c.bundle, c.previous, c.note) for c in registry.history()]
    assert told == [(2, "promote", B, A, "promote b"), (1, "promote", A, None, "promote a")]


def test_a_newer_report_stands_for_the_older_one_and_the_releases_date_stays(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((1.0, 2.0, 3.0))
    monkeypatch.setattr(registry_module, "time", SimpleNamespace(time=lambda: next(clock)))
    registry.add(A, {"verdict": "not better"})
    registry.add(B, {"verdict": "not better"})
    registry.add(A, {"verdict": "better"})
    release = registry.get(A)
    assert (release.report, release.created_at, release.judged_at) == ({"verdict": "better"}, 1, 3)
    assert [release.bundle for release in registry.list()] == [B, A]
    verdicts = [e.report["verdict"] for e in registry.events(A) if isinstance(e, Judged)]
    assert verdicts == ["not better", "better"]


def test_an_unknown_bundle_cannot_be_promoted(registry: Registry) -> None:
    with pytest.raises(UnknownId):
        registry.get(A)
    with pytest.raises(UnknownId):
        registry.promote(A, registry.live())
    assert registry.live() == LiveRelease(None, 0)


def test_what_is_live_already_cannot_be_promoted(registry: Registry) -> None:
    promote(registry, A)
    with pytest.raises(Conflict, match="already live"):
        registry.promote(A, registry.live())


def test_a_promotion_that_looked_too_early_is_refused(registry: Registry) -> None:
    seen = registry.live()
    registry.add(A, {})
    promote(registry, B)
    with pytest.raises(Conflict, match="changed meanwhile"):
        registry.promote(A, seen)
    assert registry.live().bundle == B


def test_of_promotions_at_once_exactly_one_wins(url: str) -> None:
    """Twenty races of four servers, each with connections of its own."""
    databases = [Database(url) for _ in range(4)]
    racers = [Registry(database) for database in databases]
    names = [f"sha256:{number:064}" for number in range(4)]
    for name in names:
        racers[0].add(name, {})
    together = threading.Barrier(4)

    def race(number: int, seen: LiveRelease) -> bool:
        together.wait()
        try:
            racers[number].promote(names[number], seen)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        for generation in range(1, 21):
            seen = racers[0].live()
            won = list(pool.map(race, range(4), [seen] * 4))
            # A racer whose bundle is live already cannot win; the three others can
            assert won.count(True) == 1
            assert racers[0].live() == LiveRelease(names[won.index(True)], generation)
    assert len(racers[0].history()) == 20
    for database in databases:
        database.close()


def test_a_rollback_and_a_promotion_at_once_do_not_both_win(url: str) -> None:
    databases = [Database(url) for _ in range(2)]
    one, other = (Registry(database) for database in databases)
    one.add(B, {})
    for _ in range(10):
        promote(one, A)
        seen, together = one.live(), threading.Barrier(2)

        def race(
            move: Callable[[LiveRelease], object],
            seen: LiveRelease = seen,
            together: threading.Barrier = together,
        ) -> bool:
            together.wait()
            try:
                move(seen)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            moves = [one.rollback, lambda live: other.promote(B, live)]
            assert sorted(pool.map(race, moves)) == [False, True]
        assert one.live().generation == seen.generation + 1
        while one.live().bundle is not None:
            one.rollback(one.live())
    for database in databases:
        database.close()


# Rolling back


def test_rolling_back_walks_the_promotions_down_to_the_base_model(registry: Registry) -> None:
    promote(registry, A, B, C)
    for expected in (B, A, None):
        seen = registry.live()
        assert registry.rollback_target(seen) == expected
        assert registry.rollback(seen, note="worse") == LiveRelease(expected, seen.generation + 1)
    with pytest.raises(Conflict, match="the base model is live"):
        registry.rollback(registry.live())
    latest = registry.history()[0]
    assert (latest.action, latest.bundle, latest.previous, latest.note) == (
        "rollback",
        None,
        A,
        "worse",
    )


def test_a_release_promoted_after_a_rollback_goes_back_to_what_was_live_then(
    registry: Registry,
) -> None:
    promote(registry, A, B)
    registry.rollback(registry.live())
    promote(registry, C)
    assert registry.rollback(registry.live()).bundle == A
    assert registry.rollback(registry.live()).bundle is None


@pytest.mark.parametrize("promoted", [[], [A]], ids=["never promoted", "rolled back"])
def test_nothing_is_below_the_base_model(registry: Registry, promoted: list[str]) -> None:
    promote(registry, *promoted)
    for _ in promoted:
        registry.rollback(registry.live())
    before = registry.live(), registry.history()
    with pytest.raises(Conflict, match="nothing to roll back"):
        registry.rollback_target(registry.live())
    with pytest.raises(Conflict, match="nothing to roll back"):
        registry.rollback(registry.live())
    assert (registry.live(), registry.history()) == before


def test_a_rollback_that_looked_too_early_is_refused(registry: Registry) -> None:
    promote(registry, A)
    seen = registry.live()
    promote(registry, B)
    with pytest.raises(Conflict, match="changed meanwhile"):
        registry.rollback(seen)
    assert registry.live().bundle == B


# Tainted releases


def test_a_tainted_release_that_is_live_makes_way_for_the_one_before(registry: Registry) -> None:
    promote(registry, A, B)
    assert registry.taint([B], "forgotten") == registry.live() == LiveRelease(A, 3)
    latest = registry.history()[0]
    assert (latest.action, latest.bundle, latest.previous, latest.note) == (
        "retire",
        A,
        B,
        "forgotten",
    )
    assert registry.rollback(registry.live()).bundle is None


def test_tainted_releases_are_passed_over_down_to_the_base_model(registry: Registry) -> None:
    promote(registry, A, B, C)
    assert registry.taint([A, B], "forgotten") == LiveRelease(C, 3)  # what is live is not touched
    assert registry.rollback_target(registry.live()) is None
    assert registry.taint([C], "forgotten") == LiveRelease(None, 4)
    with pytest.raises(Conflict, match="the base model is live"):
        registry.rollback(registry.live())


def test_a_release_that_is_live_for_the_second_time_makes_way_too(registry: Registry) -> None:
    promote(registry, A, B)
    registry.promote(A, registry.live())
    assert registry.taint([A], "forgotten").bundle == B
    assert registry.rollback(registry.live()).bundle is None  # not A again


def test_promotions_and_rollbacks_go_on_after_a_taint(registry: Registry) -> None:
    promote(registry, A, B)
    registry.taint([B], "forgotten")
    promote(registry, C)
    assert [registry.rollback(registry.live()).bundle for _ in range(2)] == [A, None]


def test_a_tainted_release_is_never_promoted(registry: Registry) -> None:
    registry.add(A, {"verdict": "better"})
    seen = registry.taint([A], "forgotten")
    assert seen == LiveRelease(None, 0)
    with pytest.raises(Conflict, match="tainted; retrain"):
        registry.promote(A, seen)
    registry.add(A, {"verdict": "better"})  # a newer report washes nothing off
    with pytest.raises(Conflict, match="tainted"):
        registry.promote(A, seen)
    assert (registry.live(), registry.history()) == (LiveRelease(None, 0), ())


def test_the_first_reason_for_a_taint_stays(registry: Registry) -> None:
    for reason in ("first", "second"):
        registry.taint([A, B], reason)
    registry.taint([], "nothing")
    assert registry.tainted() == {A: "first", B: "first"}


def test_a_taint_and_promotions_at_once_never_leave_a_tainted_release_live(url: str) -> None:
    databases = [Database(url) for _ in range(2)]
    one, other = (Registry(database) for database in databases)
    for number in range(10):
        name = f"sha256:{number:064}"
        one.add(name, {})
        seen, together = one.live(), threading.Barrier(2)

        def promote_it(
            name: str = name, seen: LiveRelease = seen, together: threading.Barrier = together
        ) -> bool:
            together.wait()
            try:
                other.promote(name, seen)
            except Conflict:
                return False
            return True

        def taint_it(name: str = name, together: threading.Barrier = together) -> LiveRelease:
            together.wait()
            return one.taint([name], "forgotten")

        with ThreadPoolExecutor(2) as pool:
            promoted, tainted = pool.submit(promote_it), pool.submit(taint_it)
        assert (
            one.live()
            == tainted.result()
            == LiveRelease(None, 2 * promoted.result() + seen.generation)
        )
    for database in databases:
        database.close()


# Servers


def test_servers_are_listed_with_what_they_said_last(registry: Registry) -> None:
    registry.report_server("one", 1, A)
    registry.report_server("two", 1, None)
    registry.report_server("one", 2, B)
    found = {s.id: (s.generation, s.bundle) for s in registry.servers()}
    assert found == {"one": (2, B), "two": (1, None)}
    registry.remove_server("two")
    assert [server.id for server in registry.servers()] == ["one"]


def test_a_silent_server_is_forgotten_after_ten_seconds(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(registry_module, "_clock", lambda _connection: now)
    registry.report_server("silent", 1, A)
    now += 9
    registry.report_server("talking", 1, A)
    assert {server.id for server in registry.servers()} == {"silent", "talking"}
    now += 2
    assert {server.id for server in registry.servers()} == {"talking"}
    registry.report_server("silent", 1, A)
    assert {server.id for server in registry.servers()} == {"silent", "talking"}


def test_the_registry_shares_a_database_with_the_store_and_survives_reopening(
    registry: Registry, database: Database, url: str
) -> None:
    store = FeedbackStore(database)
    promote(registry, A)
    again = Database(url)
    assert Registry(again).live() == LiveRelease(A, 1)
    assert FeedbackStore(again).counts() == store.counts()
    again.close()


def test_a_server_heard_of_in_the_future_is_not_waited_for(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock, or this one's, was set back after it went away."""
    now = time.time()
    monkeypatch.setattr(registry_module, "_clock", lambda _connection: now + 3600)
    registry.report_server("gone", 0, None)
    monkeypatch.setattr(registry_module, "_clock", lambda _connection: now)
    registry.report_server("here", 0, None)
    assert [server.id for server in registry.servers()] == ["here"]


def test_a_registry_of_a_newer_version_is_refused(
    registry: Registry, database: Database, url: str
) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version_deploy SET version_num = 'next_9999'")
    later = Database(url)
    with pytest.raises(BurnishError, match="newer Burnish"):
        Registry(later)
    later.close()


def test_rolling_back_reaches_the_base_model_when_a_release_was_promoted_twice(
    registry: Registry,
) -> None:
    for bundle in (A, B):
        registry.add(bundle, {"verdict": "better"})
    for bundle in (A, B, A):
        registry.promote(bundle, registry.live())
    seen = [registry.rollback(registry.live()).bundle for _ in range(3)]
    assert seen == [B, A, None]
