"""Time slices: the engine's steps and long work in the background take turns to compute.

Two cores cannot compute for three threads at once, and Python threads that compute side by side
wait for the interpreter's lock, up to 5 ms each time. So background work is cut into pieces, each
in a time slice of its own, and a step waits for at most one of them. Knows threads and the clock.
A slice protects no data: work without one is slower, not wrong.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

# Called between two pieces of long work; it returns once the engine has made its step
YieldToEngine = Callable[[], None]
SLICE_SECONDS = 0.001  # short beside a step, long beside the 0.03 ms of a change of threads
# The longest wait for a slice: the thread that has it may hang, in a step or on a disk
PATIENCE_SECONDS = 0.25


def do_not_yield() -> None:
    """The `YieldToEngine` of work beside which no engine runs."""


class TimeSlices:
    """A queue of threads, of which the first computes: first come, first served."""

    def __init__(self) -> None:
        self._queue: deque[threading.Event] = deque()  # each is set once it is first
        self._guard = threading.Lock()

    @contextmanager
    def slice(self) -> Iterator[None]:
        """Wait for a slice, `PATIENCE_SECONDS` at most; it ends with the block."""
        mine = threading.Event()
        with self._guard:
            self._queue.append(mine)
            self._queue[0].set()
        try:
            mine.wait(PATIENCE_SECONDS)
            yield
        finally:
            with self._guard:
                self._queue.remove(mine)
                if self._queue:
                    self._queue[0].set()

    @contextmanager
    def slices(self) -> Iterator[YieldToEngine]:
        """A slice that the yielded function ends, and asks for anew, once it has lasted long.

        The block must not wait for anything that the engine computes.
        """
        with ExitStack() as held:
            held.enter_context(self.slice())
            begun = time.perf_counter()

            def yield_to_engine() -> None:
                nonlocal begun
                if time.perf_counter() - begun >= SLICE_SECONDS:
                    held.close()
                    held.enter_context(self.slice())
                    begun = time.perf_counter()

            yield yield_to_engine
