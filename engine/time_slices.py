"""Whose turn it is: a step of the engine, or a piece of work in the background.

Two cores do not do three threads' work at once, and Python threads that compute side by side wait
for each other's hold on the interpreter, up to 5 ms each time. So whoever has long work in the
background cuts it into pieces and does each in a turn of its own: a step then waits for at most
one piece. Knows threads and the clock; no data is guarded by a turn, so being without one costs
time and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

# Called between two pieces of long work, which stops there while others have their turn
YieldToEngine = Callable[[], None]
SLICE_SECONDS = 0.001  # short beside a step, long beside the 0.03 ms that handing over takes
# Whoever has waited so long goes on without a turn: the other one may hang, in a step or on a disk
PATIENCE_SECONDS = 0.25


def do_not_yield() -> None:
    """The `YieldToEngine` of work that nobody else waits for."""


class TimeSlices:
    """A queue of threads whose first has the turn: first come, first served."""

    def __init__(self) -> None:
        self._queue: deque[threading.Event] = deque()  # each is set once it is first
        self._guard = threading.Lock()

    @contextmanager
    def slice(self) -> Iterator[None]:
        """Wait for one's turn; it ends with the block."""
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
        """A slice that `yield_to_engine` gives up and asks for anew once it has been long.

        Never wait in the block for what the engine computes.
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
