"""`burnish` as scripts call it, in the test's process, and what it is given."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from tests.feedback_store.people import Person


class Cli:
    """`burnish` over one home, in this process: starting Python anew takes seconds each time."""

    def __init__(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.home = home
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """Standard output and standard error of a command that must end with a status."""
        self._monkeypatch.setattr(sys, "argv", ["burnish", *arguments, "--home", str(self.home)])
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        output, errors = self._capfd.readouterr()
        assert (ended.value.code or 0) == status, f"{arguments}: {output}{errors}"
        return output, errors

    def json(self, *arguments: str) -> Any:
        output, _ = self(*arguments, "--json")
        return json.loads(output.strip().splitlines()[-1])


def pairs_file(path: Path, count: int) -> Path:
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Question {number}?"}],
            "chosen": [{"role": "assistant", "content": "The sea."}],
            "rejected": [{"role": "assistant", "content": "The cat sat on the warm stone."}],
        }
        for number in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


ANN, BOB = Person("ann"), Person("bob")
