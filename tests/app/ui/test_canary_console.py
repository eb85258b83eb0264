"""The console's card of a canary: what it says, in both languages, and what its buttons do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest

from app.learning.desk import DeskReader
from app.settings import Settings
from app.ui.canary_console import CanaryCard
from app.ui.release_changes import ReleaseChanges
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
    service = cast(Any, SimpleNamespace(workspace=workspace))
    return CanaryCard(service, DeskReader(workspace), lambda _request: "ann")


@pytest.fixture
def changes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> ReleaseChanges:
    """The acts that ask first, at the hand of Ann, on a home without servers."""
    monkeypatch.setattr("app.ui.release_changes.actor_of", lambda _request: "ann")
    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    return ReleaseChanges(cast(Any, SimpleNamespace(workspace=workspace)))


def release(workspace: Workspace, seed: int = 0, verdict: str = "better") -> str:
    bundle = make_bundle(workspace.home.bundles, workspace.base, seed)
    workspace.registry.add(bundle, {"verdict": verdict})
    return bundle


def words_of(html: str) -> str:
    """The text of some HTML."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def acts_of(workspace: Workspace) -> list[str]:
    """The acts in the audit log, the oldest first."""
    return [entry.action for entry in reversed(workspace.accounts.audit.entries())]


def test_without_a_canary_the_card_says_what_one_is_and_what_the_loop_does(
    card: CanaryCard,
) -> None:
    drawn, shown, beginning, deciding = card.refresh("", ENGLISH)
    assert "what people say of it decides" in drawn
    assert "goes live by itself (loop_promotes, loop_canary)" in drawn
    assert (beginning["visible"], deciding["visible"]) == (True, False)
    assert card.refresh(shown, ENGLISH) == (gr.skip(),) * 4  # what is drawn stays
    assert "由人们的评价决定" in card.refresh("", CHINESE)[0]


def test_a_canary_is_started_shown_and_stopped(card: CanaryCard, workspace: Workspace) -> None:
    bundle = release(workspace)
    drawn, _, beginning, deciding = card.start(bundle[7:19], 25, ENGLISH)
    said = words_of(drawn)
    name = f"r1 ({bundle[7:13]})"
    assert said.startswith(f"{name} answers 25% of the conversations that begin now, base the")
    assert "by ann." in said
    assert "Evidence that it is better 1 of 33 (e-value)" in said
    assert "Evidence that it is worse 1 of 50 (e-value)" in said
    assert "0 of 600 verdicts, day 0 of 14" in said
    assert f"{name} goes live; with enough that it is worse" in said
    assert (beginning["visible"], deciding["visible"]) == (False, True)
    running = workspace.canaries.running()
    assert running is not None and running.actor == "ann"
    drawn, _, beginning, deciding = card.stop(CHINESE)
    assert "这次试用已结束：未作决定" in drawn
    assert (beginning["visible"], deciding["visible"]) == (True, False)
    assert acts_of(workspace) == ["canary start", "canary stop"]


def test_what_cannot_be_done_is_said(
    card: CanaryCard, changes: ReleaseChanges, workspace: Workspace
) -> None:
    with pytest.raises(gr.Error, match="Choose a release"):
        card.start(None, 20, ENGLISH)
    with pytest.raises(gr.Error, match="当前没有"):
        card.stop(CHINESE)
    with pytest.raises(gr.Error, match="no canary runs"):
        changes.ask_take_back(ENGLISH)
    card.start(release(workspace)[7:19], 20, ENGLISH)
    with pytest.raises(gr.Error, match="runs already"):
        card.start(release(workspace, seed=1)[7:19], 20, ENGLISH)


def test_the_release_on_trial_is_taken_back_with_a_reason(
    card: CanaryCard, changes: ReleaseChanges, workspace: Workspace
) -> None:
    bundle = release(workspace)
    card.start(bundle[7:19], 20, ENGLISH)
    asked, group, words, *_ = changes.ask_take_back(ENGLISH)
    assert group["visible"] is True
    assert f"Take {bundle[7:19]} back? From the next answer on nobody gets it" in words
    assert workspace.canaries.running() is not None  # asking does nothing
    changes.confirm(asked, "it swears", ENGLISH)
    ended = workspace.canaries.newest()
    assert ended is not None and ended.outcome == "rolled back"
    assert workspace.registry.live().bundle is None
    assert "taken back by ann: it swears" in str(workspace.registry.events()[-1])
    assert acts_of(workspace) == ["canary start", "canary roll back"]


def test_the_release_on_trial_is_promoted_though_the_gate_was_not_asked(
    card: CanaryCard, changes: ReleaseChanges, workspace: Workspace
) -> None:
    bundle = release(workspace, verdict="not judged")
    card.start(bundle[7:19], 20, ENGLISH)
    asked, _, words, *_ = changes.ask_promote_candidate(ENGLISH)
    assert "End the trial and make" in words
    with pytest.raises(gr.Error, match="needs a reason"):
        changes.confirm(asked, "", ENGLISH)
    changes.confirm(asked, "people like it", ENGLISH)
    assert workspace.registry.live().bundle == bundle
    assert workspace.canaries.running() is None


def test_an_answer_to_a_question_about_an_earlier_trial_does_nothing(
    card: CanaryCard, changes: ReleaseChanges, workspace: Workspace
) -> None:
    card.start(release(workspace)[7:19], 20, ENGLISH)
    asked, *_ = changes.ask_take_back(ENGLISH)
    card.stop(ENGLISH)
    card.start(release(workspace, seed=1)[7:19], 20, ENGLISH)
    with pytest.raises(gr.Error, match="another canary runs now"):
        changes.confirm(asked, "", ENGLISH)
    assert workspace.canaries.running() is not None
