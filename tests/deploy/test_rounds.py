"""The parts of a round: its timetable and plan, its lease, its events, its webhook."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from deploy.heartbeats import SILENT_SECONDS
from deploy.releases.registry import Registry
from deploy.rounds.plan import loop_plan
from deploy.rounds.round import LoopEvent, LoopHistory, history_of
from deploy.rounds.store import Lease, RoundStore
from deploy.rounds.timetable import Timetable, is_waiting, wait_after_attempts, wait_after_rounds
from deploy.rounds.webhook import deliver
from engine.errors import Conflict, InvalidInput, PeerUnavailable
from engine.units import DAY_SECONDS
from feedback_store.storage.database import Database
from tests.feedback_store.conftest import postgresql  # noqa: F401 - a fixture
from tests.postgresql import Server
from tests.support.databases import migrated_sqlite


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NIGHT = Timetable("0 3 * * *", zone=UTC)


# Times


def test_a_look_is_due_once_for_each_time_of_the_schedule() -> None:
    assert not NIGHT.is_look_due(at("2026-11-01 03:00"), at("2026-11-02 02:59"))
    assert NIGHT.is_look_due(at("2026-11-01 03:00"), at("2026-11-02 03:00"))
    # A machine that slept through three nights looks once, when it wakes up
    assert NIGHT.is_look_due(at("2026-11-01 03:00"), at("2026-11-04 09:00"))
    assert not NIGHT.is_look_due(at("2026-11-04 09:00"), at("2026-11-04 09:15"))


@pytest.mark.parametrize(
    ("hours", "now", "until"),
    [
        ("08:00-18:00", "2026-11-01 07:59", None),
        ("08:00-18:00", "2026-11-01 08:00", "2026-11-01 18:00"),
        ("08:00-18:00", "2026-11-01 18:00", None),
        ("22:00-06:00", "2026-11-01 23:00", "2026-11-02 06:00"),
        ("22:00-06:00", "2026-11-02 05:59", "2026-11-02 06:00"),
        ("22:00-06:00", "2026-11-02 12:00", None),
    ],
)
def test_quiet_hours_may_go_past_midnight(hours: str, now: str, until: str | None) -> None:
    found = Timetable(quiet_hours=hours, zone=UTC).quiet_until(at(now))
    assert found == (None if until is None else at(until))


@pytest.mark.parametrize("hours", ["8-18", "08:00", "25:00-26:00", "08:00-18:00 "])
def test_hours_of_another_form_are_refused(hours: str) -> None:
    with pytest.raises(InvalidInput, match="08:00-18:00"):
        Timetable(quiet_hours=hours)


def test_the_minutes_of_a_day_are_those_worked_on_it() -> None:
    timetable = Timetable(minutes_a_day=30, zone=UTC)
    worked = [(at("2026-11-01 23:59"), 1200.0), (at("2026-11-02 00:10"), 600.0)]
    assert timetable.seconds_left(worked, at("2026-11-01 23:59")) == 600
    assert timetable.seconds_left(worked, at("2026-11-02 01:00")) == 1200
    assert timetable.seconds_left(worked * 9, at("2026-11-02 01:00")) == 0


def test_waits_grow_after_each_failure_and_a_clock_that_was_set_back_ends_them() -> None:
    assert [wait_after_attempts(n) / 60 for n in range(4)] == [0, 5, 20, 80]
    assert [wait_after_rounds(n) / DAY_SECONDS for n in range(6)] == [0, 1, 2, 4, 7, 7]
    assert is_waiting(100, 60, 159)
    assert not is_waiting(100, 60, 160)
    assert not is_waiting(100, 60, 99)


# The plan


def told(*events: tuple[int | None, str, float, dict[str, object]]) -> LoopHistory:
    return history_of(LoopEvent(*event) for event in events)


BEGUN: tuple[int, str, float, dict[str, object]] = (1, "begun", at("2026-11-01 03:00"), {})


def test_what_it_would_do_and_why() -> None:
    def plan(
        history: LoopHistory, now: str, timetable: Timetable = NIGHT, *, enabled: bool = True
    ) -> tuple[str, str]:
        looked = history.looked_at or at("2026-11-01 03:00")
        found = loop_plan(history, timetable, now=at(now), looked_at=looked, enabled=enabled)
        return found.action, found.reason

    nothing = LoopHistory()
    assert plan(nothing, "2026-11-01 04:00") == (
        "wait",
        "the next look at the feedback is scheduled",
    )
    assert plan(nothing, "2026-11-02 03:00") == ("look", "a look at the feedback is due")
    assert plan(nothing, "2026-11-02 03:00", enabled=False)[0] == "wait"
    quiet = Timetable(quiet_hours="00:00-06:00", zone=UTC)
    assert plan(nothing, "2026-11-02 03:00", quiet) == ("wait", "these are quiet hours")

    begun = told(BEGUN)
    assert plan(begun, "2026-11-01 03:01", enabled=False) == (
        "go on",
        "round 1 goes on with its stage snapshot",
    )
    assert plan(begun, "2026-11-01 03:01", quiet)[0] == "wait"
    asked = told((1, "begun", at("2026-11-01 03:00"), {"forced": True}))
    assert plan(asked, "2026-11-01 03:01", quiet)[0] == "go on"

    failure: dict[str, object] = {"stage": "tune", "error": "out of memory"}
    failed = told(BEGUN, (1, "failed", at("2026-11-01 03:10"), failure))
    action, reason = plan(failed, "2026-11-01 03:14")
    assert (action, "tune: out of memory" in reason) == ("wait", True)
    assert plan(failed, "2026-11-01 03:15")[0] == "go on"

    ended, at_four = {"outcome": "failed", "reason": "out of memory"}, at("2026-11-01 04:00")
    given_up = told(BEGUN, (1, "ended", at_four, {**ended}), (1, "report", at_four, {}))
    assert plan(given_up, "2026-11-02 03:00") == ("wait", "1 rounds in a row have failed")
    assert plan(given_up, "2026-11-02 04:00") == ("look", "a look at the feedback is due")


# The lease and the events


@pytest.fixture(params=["sqlite", "postgresql"])
def store_database(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Database]:
    if request.param == "sqlite":
        url = migrated_sqlite(request.getfixturevalue("tmp_path"))
    else:
        server: Server = request.getfixturevalue("postgresql")
        url = server.create_migrated()
    database = Database(url)
    Registry(database)
    yield database
    database.close()


class Clock:
    """A monotonic clock that a test turns on."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_one_loop_holds_the_lease_and_another_takes_over_once_it_is_silent(
    store_database: Database,
) -> None:
    clock = Clock()
    one, other = Lease(store_database, clock), Lease(store_database, clock)
    assert one.acquire()
    assert not other.acquire()
    clock.seconds += SILENT_SECONDS - 1
    assert one.renew()
    assert not other.acquire()  # it has seen a sign of life
    clock.seconds += SILENT_SECONDS - 1
    assert not other.acquire()
    clock.seconds += 1
    assert other.acquire()
    assert not one.renew()
    one.release()  # of what it no longer holds
    assert other.renew()
    other.release()
    assert one.acquire()


def test_a_loop_that_wakes_up_too_late_records_nothing(store_database: Database) -> None:
    clock = Clock()
    one, other = (RoundStore(store_database, monotonic=clock) for _ in range(2))
    assert one.lease.acquire()
    number = one.begin({"recipe": {}})
    assert not other.lease.acquire()
    clock.seconds += SILENT_SECONDS
    assert other.lease.acquire()
    with pytest.raises(Conflict, match="taken over"):
        one.record(number, "snapshot", {})
    other.record(number, "snapshot", {"snapshot": "x"})
    assert other.history().rounds[0].next_stage == "tune"


def test_a_stage_is_recorded_once_and_a_round_begins_after_the_one_before(
    store_database: Database,
) -> None:
    rounds = RoundStore(store_database)
    with pytest.raises(Conflict):
        rounds.begin({})  # without the lease
    with rounds.lease.held():
        number = rounds.begin({})
        rounds.record(number, "snapshot", {"snapshot": "x"})
        with pytest.raises(Conflict, match="snapshot already"):
            rounds.record(number, "snapshot", {"snapshot": "y"})
        with pytest.raises(Conflict, match="round 1 of the loop goes on"):
            rounds.begin({})
        for stage in ("tune", "evaluate", "canary", "promote", "report"):
            rounds.record(number, stage, {})
        assert rounds.begin({}) == 2
    with pytest.raises(Conflict):
        rounds.record(2, "snapshot", {})


# The webhook


class Receiver(HTTPServer):
    """An operator's URL that refuses the first deliveries."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.got: list[tuple[dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
        refused = len(self.server.got) <= self.server.refusals
        self.send_response(503 if refused else 204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(params=[0])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    server = Receiver(request.param)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


SECRET = "whsec_" + base64.b64encode(b"a key of 24 bytes or so.").decode()


@pytest.mark.parametrize("receiver", [1], indirect=True)
def test_a_round_is_delivered_signed_and_again_after_a_refusal(receiver: Receiver) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/"
    waits: list[float] = []
    deliver(url, SECRET, "round-4-1", {"outcome": "promoted", "round": 4}, sleep=waits.append)
    assert len(receiver.got) == 2
    assert len(waits) == 1
    headers, body = receiver.got[-1]
    assert json.loads(body) == {"outcome": "promoted", "round": 4}
    # Derived as standardwebhooks.com describes it, not by our function
    signed = f"round-4-1.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(b"a key of 24 bytes or so.", signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert {head["webhook-id"] for head, _ in receiver.got} == {"round-4-1"}


@pytest.mark.parametrize("receiver", [9], indirect=True)
def test_a_url_that_is_away_is_an_error_after_three_tries(receiver: Receiver) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/"
    with pytest.raises(PeerUnavailable, match="status 503"):
        deliver(url, SECRET, "round-4-1", {}, sleep=lambda _: None)
    assert len(receiver.got) == 3
