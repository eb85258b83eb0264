"""Two releases on the operator's own question: both answer, nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest

from app.service import Service
from app.settings import Settings
from app.ui.side_by_side import SideBySide
from app.workspace import Workspace
from tests.helpers import make_bundle
from tests.support.scripted_engine import ScriptedEngine

REQUEST = cast(
    gr.Request,
    SimpleNamespace(
        headers={"accept-language": "en"}, request=SimpleNamespace(session={"user": "operator"})
    ),
)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def service(
    settings: Settings, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: engine)
    service = Service(Workspace(settings))
    yield service
    service.close()


def test_both_releases_answer_and_nothing_is_stored(
    service: Service, engine: ScriptedEngine
) -> None:
    bundle = make_bundle(service.workspace.home.bundles, service.workspace.base)
    # The first one is the probe of an adapter that is loaded
    engine.answers = iter(["Hello!", "The moon pulls.", "It is the moon."])
    asked = [*SideBySide(service).ask(bundle[7:19], "base", "Why are there tides?", REQUEST)]
    assert asked[-1] == ("The moon pulls.", "It is the moon.")
    told = [r for r in engine.requests if r.messages[-1].content == "Why are there tides?"]
    assert [r.adapter for r in told] == [bundle, None]
    assert {r.sampling.temperature for r in told} == {0.0}
    assert service.workspace.store.counts()["answers"] == 0


def test_a_refusal_is_said_and_leaves_no_answer_running(
    service: Service, engine: ScriptedEngine
) -> None:
    with pytest.raises(gr.Error, match="not an id"):
        [*SideBySide(service).ask("base", "no such release", "Why?", REQUEST)]
    assert engine.active_streams == 0
    with pytest.raises(gr.Error, match="empty"):
        [*SideBySide(service).ask("base", "live", "  ", REQUEST)]


def test_the_lists_have_live_base_and_every_release(service: Service) -> None:
    registry = service.workspace.registry
    registry.add("sha256:" + "a" * 64, {"verdict": "better"})
    page = SideBySide(service)
    first, second, known = page.choices([], REQUEST)
    assert known == ["a" * 12]
    names: list[Any] = [value for _, value in first["choices"]]
    assert names == ["live", "base", "a" * 12] == [value for _, value in second["choices"]]
    assert page.choices(known, REQUEST)[0] == gr.skip()  # an open list is left alone
