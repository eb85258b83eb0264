"""A thread that repeats its work ends when it is told to, or when the work says so."""

from __future__ import annotations

import threading
from itertools import count

from engine.repeater import Repeater

SOON_SECONDS = 0.001


def test_work_is_done_again_and_again_until_it_is_stopped() -> None:
    calls, third = count(1), threading.Event()

    def work() -> None:
        if next(calls) == 3:
            third.set()

    repeater = Repeater(work, SOON_SECONDS, "repeated")
    repeater.start()
    assert third.wait(60)
    repeater.stop()
    done = next(calls)
    assert "repeated" not in {thread.name for thread in threading.enumerate()}
    assert next(calls) == done + 1, "nothing has counted since"


def test_work_that_returns_false_is_not_repeated() -> None:
    calls: list[threading.Thread] = []
    ended = threading.Event()

    def work() -> bool:
        calls.append(threading.current_thread())
        ended.set()
        return False

    repeater = Repeater(work, SOON_SECONDS, "repeated once")
    repeater.start()
    assert ended.wait(60)
    calls[0].join(60)
    assert len(calls) == 1
    assert not calls[0].is_alive()


def test_one_that_was_never_started_can_be_stopped() -> None:
    Repeater(lambda: None, SOON_SECONDS, "never").stop()
