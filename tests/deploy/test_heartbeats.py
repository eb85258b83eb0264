"""A holder is silent once its row has stayed the same for long by the watcher's own clock."""

from __future__ import annotations

import threading

from deploy.heartbeats import SILENT_SECONDS, SilenceWatch, heartbeats
from engine.errors import DatabaseUnavailable


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_row_that_changes_is_never_silent_and_one_that_stays_is_after_a_while() -> None:
    clock = Clock()
    watch = SilenceWatch(clock)
    assert watch.silent({"beating": 0, "dead": 7}) == set()
    clock.now += SILENT_SECONDS - 1
    assert watch.silent({"beating": 1, "dead": 7}) == set()
    clock.now += 1
    assert watch.silent({"beating": 1, "dead": 7}) == {"dead"}


def test_a_row_that_was_gone_meanwhile_is_watched_anew() -> None:
    clock = Clock()
    watch = SilenceWatch(clock)
    watch.silent({"row": 7})
    watch.silent({})
    clock.now += SILENT_SECONDS
    assert watch.silent({"row": 7}) == set()


def test_heartbeats_go_on_after_a_database_that_is_away_and_end_with_what_was_held() -> None:
    beats: list[threading.Thread] = []
    lost = threading.Event()

    def beat() -> bool:
        beats.append(threading.current_thread())
        if len(beats) == 1:
            raise DatabaseUnavailable("restarting")
        if len(beats) < 3:
            return True
        lost.set()
        return False

    with heartbeats(beat, "beats", seconds=0.001):
        assert lost.wait(60)
        beats[0].join(60)
        assert not beats[0].is_alive()
    assert len(beats) == 3
