"""The console's card of a canary: what it says, in both languages, and what its buttons do."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest

from app.settings import Settings
from app.ui.canary_console import CanaryCard
from app.workspace import Workspace
from tests.helpers import make_bundle

ENGLISH = cast(gr.Request, SimpleNamespace(headers={"accept-language": "en"}))
CHINESE = cast(gr.Request, SimpleNamespace(headers={"accept-language": "zh-CN"}))


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    workspace = Workspace(settings)
    yield workspace
    workspace.close()


@pytest.fixture
def card(workspace: Workspace) -> CanaryCard:
    return CanaryCard(cast(Any, SimpleNamespace(workspace=workspace)), lambda _request: "ann")


def release(workspace: Workspace, seed: int = 0) -> str:
    bundle = make_bundle(workspace.home.bundles, workspace.base, seed)
    workspace.registry.add(bundle, {"verdict": "better"})
    return bundle


def test_without_a_canary_the_card_says_what_one_is(card: CanaryCard) -> None:
    shown, stop = card.refresh(ENGLISH)
    assert "what people say of it decides" in shown
    assert stop["interactive"] is False
    assert "由人们的评价决定" in card.refresh(CHINESE)[0]


def test_a_canary_is_started_shown_and_stopped(card: CanaryCard, workspace: Workspace) -> None:
    bundle = release(workspace)
    shown, stop = card.start(bundle[7:19], 25, ENGLISH)
    assert shown.split("\n\n") == [
        f"**{bundle[7:19]}** answers 25% of new conversations, **base** the others: running",
        "On trial: – good (0 of 0; 0 ties)",
        "Live: – good (0 of 0; 0 ties)",
        "Evidence that it is better (e-value): 1.00. It goes live at 33.",
        "Evidence that it is worse (e-value): 1.00. It is taken back at 50.",
        "0 of 600 verdicts; then it stops undecided",
    ]
    assert stop["interactive"] is True
    running = workspace.canaries.running()
    assert running is not None and running.actor == "ann"
    shown, stop = card.stop(CHINESE)
    assert shown.splitlines()[0].endswith("未作决定")
    assert stop["interactive"] is False
    assert [entry.action for entry in workspace.accounts.audit.entries()] == [
        "canary stop",
        "canary start",
    ]


def test_what_cannot_be_done_is_said(card: CanaryCard, workspace: Workspace) -> None:
    with pytest.raises(gr.Error, match="Choose a release"):
        card.start(None, 20, ENGLISH)
    with pytest.raises(gr.Error, match="当前没有"):
        card.stop(CHINESE)
    card.start(release(workspace)[7:19], 20, ENGLISH)
    with pytest.raises(gr.Error, match="runs already"):
        card.start(release(workspace, seed=1)[7:19], 20, ENGLISH)
