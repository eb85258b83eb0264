"""The console's overview: what it says of releases that the gate has and has not judged."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.html.gains_plot import gains_html
from app.settings import Settings
from app.ui.console import ConsolePage
from app.ui.feedback_console import TableState, TrainingDataPage
from app.ui.release_changes import ReleaseChanges
from app.ui.trend_console import TrendPage
from app.web.evaluation_page import evaluations_router
from app.workspace import Workspace
from engine.storage import publish
from tests.helpers import make_bundle

ENGLISH = cast(gr.Request, SimpleNamespace(headers={"accept-language": "en"}))
CHINESE = cast(gr.Request, SimpleNamespace(headers={"accept-language": "zh"}))
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
    desk, lineage, drawn, changes, promote, rollback, *_ = page.refresh([], None, ENGLISH)
    assert "Nothing waits for you." in desk
    assert "No release yet" in lineage
    assert changes["visible"] is False  # there is nothing to promote or take back
    assert (promote["variant"], rollback["interactive"]) == ("secondary", False)
    for _ in range(9):  # more consoles, within a few seconds; what is drawn stays
        again, same, *_ = page.refresh([], drawn, ENGLISH)
        assert (again, same) == (gr.skip(), gr.skip())
    assert len(refreshed) == 1


def test_promote_has_the_accent_where_a_release_waits_for_it(page: ConsolePage) -> None:
    workspace = page._workspace
    page._service.rounds = cast(Any, SimpleNamespace(last="none yet"))
    page._service.engine = cast(Any, SimpleNamespace(active_streams=0))
    bundle = make_bundle(workspace.home.bundles, workspace.base)
    gain = {"estimate": 0.1, "low": 0.02, "high": 0.18}
    workspace.registry.add(bundle, {**JUDGED, "gain": gain})
    changes, promote, rollback = page.refresh([], None, ENGLISH)[3:6]
    assert (changes["visible"], promote["variant"], rollback["interactive"]) == (
        True,
        "primary",
        False,
    )
    workspace.registry.promote(bundle, workspace.registry.live())
    page.desk.forget()
    changes, promote, rollback = page.refresh([], None, ENGLISH)[3:6]
    assert (promote["variant"], rollback["interactive"]) == ("secondary", True)


def test_a_click_asks_first_and_says_on_how_little_it_would_train(page: ConsolePage) -> None:
    changes = ReleaseChanges(page._service)
    asked, group, words, reason, _ = changes.ask_tune(ENGLISH)
    assert (asked.act, group["visible"], reason["visible"]) == ("tune", True, False)
    assert "Train on 0 pairs? 20 make a first training worth trying" in words
    asked, group, words, reason, _ = changes.ask_promote("abc", True, ENGLISH)
    assert (asked.act, asked.force, reason["visible"]) == ("promote", True, True)
    assert "This needs a reason" in words
    with pytest.raises(gr.Error, match="nothing to train on"):
        changes.ask_round(ENGLISH)
    assert page._workspace.registry.events() == ()
    with pytest.raises(gr.Error, match="the base model is live"):
        changes.ask_rollback(ENGLISH)


def test_the_gains_are_drawn_on_one_scale_and_said_in_words(page: ConsolePage) -> None:
    registry = page._workspace.registry
    assert gains_html(page._workspace.release_trend(), "en") == ""
    gain = {"estimate": 0.2, "low": 0.1, "high": 0.3}
    first, second = (f"sha256:{letter * 64}" for letter in "ab")
    registry.add(first, {**JUDGED, "gain": gain, "gain_on_base": gain, "incumbent": None})
    worse = {"estimate": -0.1, "low": -0.2, "high": 0.0}
    report = {**JUDGED, "gain": worse, "gain_on_base": gain, "incumbent": first}
    registry.add(second, {**report, "verdict": "not better"})
    drawn = gains_html(page._workspace.release_trend(), "en")
    newest, oldest = drawn.split("<li>")[1:]
    assert "<b>r2 (bbbbbb)</b> <span>not better</span>" in newest
    assert "-10 points against r1 (aaaaaa) (-20 to +0)" in newest
    assert "+20 points against base (+10 to +30)" in newest
    assert oldest.count("<svg") == 1  # the one before it is the base model
    # From -0.21 to 0.31: zero lies at 0.21 / 0.52 of the width in every row
    assert newest.count("M404 0V12") == 2
    assert oldest.count("M404 0V12") == 1
    chinese = gains_html(page._workspace.release_trend(), "zh")
    assert "没有更好" in chinese
    story, link = TrendPage(page._workspace).tell("a" * 12, ENGLISH)
    assert "<b>judged against the base model: better</b>" in story
    told = TrendPage(page._workspace).tell("a" * 12, CHINESE)[0]
    assert "<b>与 基础模型 比较的评估：更好</b>" in told
    assert link["visible"] is False


def test_an_empty_list_of_training_data_says_where_its_rows_come_from(page: ConsolePage) -> None:
    updates = TrainingDataPage(page._workspace).from_start("pairs", "", "", TableState(), ENGLISH)
    hint = updates[5]["value"]
    assert hint.startswith("Nothing is here. Thumbs, corrections and comparisons")


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
