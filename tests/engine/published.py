"""A folder to publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def fill(folder: Path) -> dict[str, Any]:
    """Two files, one of them in a subfolder."""
    (folder / "deep").mkdir()
    (folder / "deep" / "weights.bin").write_bytes(b"weights" * 100)
    (folder / "note.txt").write_bytes(b"hello")
    return {"format": "test/1"}
