"""Servers count as alive whatever the clocks say."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from deploy.releases.registry import SERVER_LOST_SECONDS, Registry
from deploy.releases.servers import ServerWatch

DAY = 24 * 3600.0


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(registry: Registry, clock: Clock) -> ServerWatch:
    return ServerWatch(registry, clock)


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the machine's clock forward or back."""

    def set_clock(seconds: float) -> None:
        moment = time.time() + seconds
        monkeypatch.setattr("deploy.releases.registry.time.time", lambda: moment)

    return set_clock


def test_a_server_is_dead_once_it_has_been_silent_for_long_enough(
    registry: Registry, watch: ServerWatch, clock: Clock
) -> None:
    registry.report_server("left", 0, None)
    registry.report_server("dead", 0, None)
    assert watch.alive() == {"left", "dead"}
    clock.now += SERVER_LOST_SECONDS / 2
    registry.report_server("left", 0, None)
    assert watch.alive() == {"left", "dead"}
    clock.now += SERVER_LOST_SECONDS / 2
    assert watch.alive() == {"left"}
    assert registry.heartbeats().keys() == {"left"}, "what is known to be dead is removed"


def test_a_server_that_was_thought_dead_is_back_with_its_next_heartbeat(
    registry: Registry, watch: ServerWatch, clock: Clock
) -> None:
    registry.report_server("slow", 0, None)
    watch.alive()
    clock.now += SERVER_LOST_SECONDS
    assert watch.alive() == frozenset()
    registry.report_server("slow", 0, None)
    assert watch.alive() == {"slow"}


@pytest.mark.parametrize("seconds", [DAY, -DAY])
def test_a_clock_that_jumps_makes_no_server_dead_or_alive(
    registry: Registry,
    watch: ServerWatch,
    clock: Clock,
    jump: Callable[[float], None],
    seconds: float,
) -> None:
    registry.report_server("beats", 0, None)
    registry.report_server("silent", 0, None)
    watch.alive()
    jump(seconds)
    assert watch.alive() == {"beats", "silent"}
    clock.now += SERVER_LOST_SECONDS
    registry.report_server("beats", 0, None)
    assert watch.alive() == {"beats"}
