"""The console's overview: what it says of releases that the gate has and has not judged."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.service import Workspace
from app.settings import Settings
from app.ui.console import ConsolePage

JUDGED = {
    "verdict": "better",
    "pairs": 9,
    "gain": {"estimate": 0.5},
    "incumbent_accuracy": 0.4,
    "candidate_accuracy": 0.9,
}


@pytest.fixture
def page(settings: Settings) -> Iterator[ConsolePage]:
    workspace = Workspace(settings)
    yield ConsolePage(cast(Any, SimpleNamespace(workspace=workspace)))
    workspace.close()


def test_an_imported_release_is_shown_as_such_before_it_was_judged(
    page: ConsolePage, settings: Settings
) -> None:
    registry = page._workspace.registry
    registry.add("sha256:" + "a" * 64, JUDGED)
    registry.add("sha256:" + "b" * 64, {"verdict": "not judged", "origin": "imported"})
    rows = [row[:-1] for row in page.releases("en").values.tolist()]
    assert rows == [
        ["b" * 12, "", "imported", "not judged", "", "", ""],
        ["a" * 12, "", "trained here", "better", "+0.50", "0.40 → 0.90", "9"],
    ]
    assert page.releases("zh").values.tolist()[0][2:4] == ["导入", "未评估"]
