"""A lock has one holder, or several that share it, and says who is in the way."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

from engine.errors import Conflict
from engine.file_lock import file_lock


def busy() -> str:
    return "somebody else has it"


@pytest.fixture(params=["file", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / "lock" if request.param == "file" else tmp_path


def test_a_lock_that_is_held_is_refused_with_the_reason_and_free_afterwards(place: Path) -> None:
    with (
        file_lock(place, busy),
        pytest.raises(Conflict, match="somebody else has it"),
        file_lock(place, busy),
    ):
        pytest.fail("two hold one lock")
    with file_lock(place, busy):
        pass


def test_a_block_that_fails_gives_the_lock_back(place: Path) -> None:
    with pytest.raises(ZeroDivisionError), file_lock(place, busy):
        raise ZeroDivisionError
    with file_lock(place, busy):
        pass


def test_a_shared_lock_excludes_only_one_that_is_not(place: Path) -> None:
    with (
        file_lock(place, busy, shared=True),
        file_lock(place, busy, shared=True),
        pytest.raises(Conflict),
        file_lock(place, busy),
    ):
        pytest.fail("it was not exclusive")
    with file_lock(place, busy), pytest.raises(Conflict), file_lock(place, busy, shared=True):
        pytest.fail("it was shared with the one holder")


def test_patience_waits_until_the_holder_has_gone(place: Path) -> None:
    taken = threading.Event()

    def wait() -> None:
        with file_lock(place, busy, patience_seconds=math.inf):
            taken.set()

    with file_lock(place, busy):
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not taken.is_set()
    assert taken.wait(60)
    waiting.join()
