"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """The condition's value once it is true; fails the test if it is not within so many seconds."""
    begun = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - begun
        assert waited < seconds, "it did not happen"
        time.sleep(min(0.001 + waited / 20, 0.05))  # a long wait leaves the processor to others
    return value
