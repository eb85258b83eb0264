"""A watch for jobs that wait for a free processor, by the processor time of their processes.

A job gets the time that nobody else uses, so on a busy machine it may stand still though it runs.
Knows processes and clocks; knows no jobs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

# A process that computes takes a whole processor. With less than a quarter of one, while less than
# half of one was idle beside it, it has waited for others. Our own choice
STARVED_BELOW = 0.25
IDLE_BELOW = 0.5
LEAST_SECONDS = 0.5  # between two readings; clocks tick 100 times a second
WINDOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ProcessorReading:
    """The clocks at one moment, in seconds.

    `worked`: processor time of a process and its children; `idle`: of the processors that it may
    use, all together. `runnable`: one of its threads wants a processor, or has one.
    """

    pid: int
    at: float
    worked: float
    idle: float
    runnable: bool = True


def read_clocks(pid: int) -> ProcessorReading | None:
    """Read the clocks of a process; None where there is no such process."""
    try:
        process = psutil.Process(pid)
        family = (process, *process.children(True))
        worked = sum(_processor_seconds(each) for each in family)
        allowed = set(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else None
    except (psutil.Error, OSError):
        return None
    processors = enumerate(psutil.cpu_times(percpu=True))
    idle = sum(
        times.idle + getattr(times, "iowait", 0.0)  # nothing ran on it then, either
        for number, times in processors
        if allowed is None or number in allowed
    )
    runnable = any(_is_runnable(each.pid) for each in family)
    return ProcessorReading(pid, time.monotonic(), worked, idle, runnable)


def was_starved(before: ProcessorReading, after: ProcessorReading) -> bool:
    """Return whether a process hardly ran between two readings, since no processor was free."""
    seconds = after.at - before.at
    worked, idle = after.worked - before.worked, after.idle - before.idle
    little = worked < STARVED_BELOW * seconds and idle < IDLE_BELOW * seconds
    return little and before.runnable and after.runnable


class ProcessorWatch:
    """Compares what a process works now with what it had worked some seconds ago."""

    def __init__(self) -> None:
        self._readings: deque[ProcessorReading] = deque()
        self._lock = threading.Lock()

    def is_waiting(self, pid: int | None) -> bool:
        """Return whether a process waits for a processor; False until it was looked at twice."""
        now = read_clocks(pid) if pid is not None else None
        if now is None:
            return False
        with self._lock:
            known = self._readings
            while known and (known[0].pid != now.pid or now.at - known[0].at > WINDOW_SECONDS):
                known.popleft()
            if not known or now.at - known[-1].at >= LEAST_SECONDS:
                known.append(now)
            before = known[0]
        return now.at - before.at >= LEAST_SECONDS and was_starved(before, now)


def _is_runnable(pid: int) -> bool:
    """Return whether a process's thread runs or could; True where no `/proc` tells (proc(5))."""
    threads = Path(f"/proc/{pid}/task")
    if not threads.is_dir():
        return True
    for thread in threads.glob("*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            if thread.read_text("utf-8", "replace").rpartition(")")[2].split()[0] == "R":
                return True
    return False


def _processor_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # a child that has ended meanwhile
        return 0.0
    return float(times.user + times.system)
