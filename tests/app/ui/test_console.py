"""The console's overview: what it says of releases that the gate has and has not judged."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.settings import Settings
from app.ui.console import ConsolePage
from app.ui.release_changes import ReleaseChanges
from app.ui.trend_console import TrendPage, gain_points
from app.web.evaluation_page import evaluations_router
from app.workspace import Workspace
from engine.storage import publish

ENGLISH = cast(gr.Request, SimpleNamespace(headers={"accept-language": "en"}))
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


def test_ten_open_consoles_bring_the_training_set_up_to_date_once(
    page: ConsolePage, monkeypatch: pytest.MonkeyPatch
) -> None:
    training_set, refreshed = page._workspace.training_set, []
    refresh = training_set.refresh

    def counted(**options: bool) -> object:
        refreshed.append(options)
        return refresh(**options)

    monkeypatch.setattr(training_set, "refresh", counted)
    page._service.rounds = cast(Any, SimpleNamespace(last="none yet"))
    page._service.engine = cast(Any, SimpleNamespace(active_streams=0))
    desk, lineage, drawn, *_ = page.refresh([], ("", ""), ENGLISH)
    assert "Nothing waits for you." in desk
    assert "No release yet" in lineage
    for _ in range(9):  # more consoles, within a few seconds; what is drawn stays
        again, same, *_ = page.refresh([], drawn, ENGLISH)
        assert (again, same) == (gr.skip(), gr.skip())
    assert len(refreshed) == 1


def test_a_click_asks_first_and_says_on_how_little_it_would_train(page: ConsolePage) -> None:
    changes = ReleaseChanges(page._service)
    act, group, words, reason = changes.ask_tune(ENGLISH)
    assert (act, group["visible"], reason["visible"]) == ("tune", True, False)
    assert "Train on 0 pairs? 20 make a first training worth trying" in words
    act, group, words, reason = changes.ask_promote("abc", True, ENGLISH)
    assert (act, reason["visible"]) == ("promote", True)
    assert "This needs a reason" in words
    assert page._workspace.registry.events() == ()
    with pytest.raises(gr.Error, match="the base model is live"):
        changes.ask_rollback(ENGLISH)


def test_the_trend_has_a_line_for_each_measure_and_each_release(page: ConsolePage) -> None:
    registry = page._workspace.registry
    assert gain_points(page._workspace.release_trend(), "en") is None
    gain = {"estimate": 0.2, "low": 0.1, "high": 0.3}
    registry.add("sha256:" + "a" * 64, {**JUDGED, "gain": gain, "gain_on_base": gain})
    registry.add("sha256:" + "b" * 64, {**JUDGED, "gain": gain})
    points = gain_points(page._workspace.release_trend(), "en")
    assert points is not None
    assert sorted(set(points["of"]))[0] == "base"
    assert len(points) == 9  # three of each measure: both of the first release, one of the second
    assert points["release"].tolist().count("01 aaaaaa") == 6
    story, link = TrendPage(page._workspace).tell("a" * 12)
    assert "judged against the base model: better" in story
    assert link["visible"] is False


def test_the_page_of_an_evaluation_is_served(page: ConsolePage) -> None:
    workspace = page._workspace
    digest = publish(
        workspace.home.evaluations,
        lambda folder: {"bytes": (folder / "evaluation.html").write_text("<p>Figures</p>")},
    )
    app = FastAPI()
    app.include_router(evaluations_router(workspace))
    client = TestClient(app)
    assert client.get(f"/console/evaluations/{digest[7:]}").text == "<p>Figures</p>"
