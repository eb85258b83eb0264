"""Tuning jobs without a training, for the console's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.jobs import WORKER
from tuning.jobs import runner as jobs_module


@pytest.fixture
def scripted_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jobs whose worker is a script that waits."""
    script = tmp_path / "worker"
    script.write_text(WORKER)
    script.chmod(0o755)
    monkeypatch.setattr(jobs_module, "sys", SimpleNamespace(executable=str(script)))
    yield
    for pid in tmp_path.glob("home/jobs/*/pid"):
        try:
            os.killpg(int(pid.read_text()), 9)
        except ProcessLookupError:
            continue  # it was cancelled
