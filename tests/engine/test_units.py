"""Sizes and times read alike wherever they are shown."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from engine.units import gib, local_minute, mib


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's zone is Tokyo's, nine hours before UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_sizes_are_in_powers_of_two_and_say_so() -> None:
    assert gib(3 * 2**29) == "1.5 GiB"
    assert mib(3 * 2**29) == "1,536 MiB"


def test_a_time_is_that_of_the_machines_zone(in_tokyo: None) -> None:
    assert local_minute(0) == "1970-01-01 09:00"
