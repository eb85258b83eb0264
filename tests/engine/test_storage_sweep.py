"""A sweep removes what a crash left, and leaves alone what a living process is writing."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.storage import LOCK_SUFFIX, publish, sweep, verify, write_atomically
from tests.engine.published import fill

# A process that fills a folder, says so, and publishes it when it is told to
PUBLISHER = """
import sys
from pathlib import Path
from engine.storage import publish

def fill(folder):
    (folder / "weights.bin").write_bytes(b"weights")
    print("filled", flush=True)
    sys.stdin.readline()
    return {"format": "test/1"}

print(publish(Path(sys.argv[1]), fill), flush=True)
"""


@pytest.fixture
def publisher(root: Path) -> subprocess.Popen[str]:
    """Another process that has filled a folder and holds it."""
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "filled\n"
    return process


def test_what_another_process_is_publishing_stays(
    root: Path, publisher: subprocess.Popen[str]
) -> None:
    sweep(root)
    written, _ = publisher.communicate("go on\n", timeout=60)
    assert verify(root, written.strip()) == []
    assert [path.name for path in root.iterdir()] == [written.strip().removeprefix("sha256:")]


def test_what_a_killed_process_was_publishing_goes(
    root: Path, publisher: subprocess.Popen[str]
) -> None:
    publisher.kill()
    publisher.communicate(timeout=60)
    assert len(list(root.iterdir())) == 2  # the folder and its lock
    sweep(root)
    assert list(root.iterdir()) == []


def test_a_file_that_is_being_written_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir()
    sweep_before(monkeypatch, "replace", root)
    write_atomically(root / "pointer.json", b"new")
    assert [path.name for path in root.iterdir()] == ["pointer.json"]


def test_a_sweep_between_the_creation_of_a_lock_and_its_locking_does_no_harm(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = fcntl.flock, list[Path]()

    def flock(descriptor: int, operation: int) -> None:
        if not swept:
            swept.extend(root.iterdir())
            sweep(root)
            assert not list(root.iterdir())
        real(descriptor, operation)

    root.mkdir()
    monkeypatch.setattr(fcntl, "flock", flock)
    digest = publish(root, fill)
    assert [path.suffix for path in swept] == [LOCK_SUFFIX]
    assert verify(root, digest) == []
    assert len(list(root.iterdir())) == 1


def test_leftovers_without_a_lock_go(root: Path) -> None:
    """Those of older versions, and what was renamed in order to be deleted."""
    (root / ".tmp-doomed" / "deep").mkdir(parents=True)
    (root / ".tmp-file").write_bytes(b"half")
    (root / "kept").write_bytes(b"")
    sweep(root)
    assert [path.name for path in root.iterdir()] == ["kept"]


def sweep_before(monkeypatch: pytest.MonkeyPatch, name: str, root: Path) -> None:
    """Sweep a folder right before each call of a method of paths."""
    real: Callable[..., Any] = getattr(Path, name)

    def swept(*arguments: Any) -> Any:
        sweep(root)
        return real(*arguments)

    monkeypatch.setattr(Path, name, swept)
