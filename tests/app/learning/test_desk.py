"""The operator's desk: what it finds to need them, and how often it reads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.html.desk import desk_html, lineage_html
from app.html.desk_words import DeskWords, desk_text
from app.learning.desk import DESK_SECONDS, SLOW_SECONDS, DeskReader
from app.settings import Settings
from app.workspace import Workspace
from deploy.releases.events import CanaryFigures, CanaryStarted, Registered
from deploy.rounds.change_point import RatingWatch
from deploy.rounds.store import RoundStore
from deploy.rounds.trigger import EvidenceCount
from engine.prompts.modes import make_template
from feedback_store.records import VoteValue
from tests.helpers import make_bundle

PLAIN = make_template("plain", (), "You are helpful.")
NOON = 1_790_000_000.0


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    workspace = Workspace(settings)
    yield workspace
    workspace.close()


def judged(verdict: str, incumbent: str | None = None) -> dict[str, object]:
    """A gate's report."""
    gain = {"estimate": 0.1, "low": 0.02, "high": 0.18}
    return {"verdict": verdict, "reason": "", "gain": gain, "pairs": 9, "incumbent": incumbent}


def kinds(workspace: Workspace) -> list[str]:
    return [need.kind for need in DeskReader(workspace).read().needs]


def words_of(workspace: Workspace, language: str = "en") -> DeskWords:
    return DeskWords(DeskReader(workspace).read(), language, NOON)


def corrected(workspace: Workspace, number: int, *, vote: VoteValue = -1) -> None:
    """An answer that Ann judges and corrects, which is one pair."""
    turn = workspace.store.add_turn(
        user_id="ann", question=f"Question {number}?", template=PLAIN, conversation_id=f"c{number}"
    )
    answer = workspace.store.begin_answer(
        turn.id, base_digest=workspace.base.digest, adapter_digest=None, sampling={}, seed=0
    )
    text = f"Answer {number}, which is wrong."
    workspace.store.finish_answer(answer, status="done", text=text, complete=True)
    workspace.store.vote(answer, "ann", vote)
    workspace.store.correct(answer, "ann", f"Number {number} is what the sea has of salt.")


def test_an_empty_home_needs_nothing_and_says_how_to_begin(workspace: Workspace) -> None:
    words = words_of(workspace)
    said = desk_text(words)
    assert words.desk.needs == ()
    assert "Nothing waits for you." in said
    assert "You have 0 examples of a better and a worse answer; 20 make a first training" in said
    assert "The next 20 come from people who correct an answer" in said
    assert "Nobody has given a thumb" in desk_html(words, 0)
    assert "No release yet. The base model answers" in lineage_html(words)


def test_a_first_time_operator_is_told_what_is_missing(workspace: Workspace) -> None:
    for number in range(12):
        corrected(workspace, number)
    first, where = words_of(workspace).first_steps()
    assert first.startswith("You have 12 examples")
    assert where.startswith("The next 8 come from")
    assert words_of(workspace, "zh").first_steps()[0].startswith("您有 12 个")
    workspace.registry.add(make_bundle(workspace.home.bundles, workspace.base), judged("better"))
    assert words_of(workspace).first_steps() == []  # there is a first one


def test_a_candidate_that_beats_the_live_one_waits_until_it_is_promoted(
    workspace: Workspace,
) -> None:
    bundle = make_bundle(workspace.home.bundles, workspace.base)
    workspace.registry.add(bundle, judged("better"))
    (need,) = DeskReader(workspace).read().needs
    assert (need.kind, need.release) == ("candidate", bundle)
    assert f"r1 ({bundle[7:13]}) beats base, which is live" in words_of(workspace).need(need)
    workspace.releases.promote(bundle, reason="better")
    assert kinds(workspace) == []


def test_a_release_that_the_gate_refused_waits_for_nobody(workspace: Workspace) -> None:
    bundle = make_bundle(workspace.home.bundles, workspace.base)
    workspace.registry.add(bundle, judged("not better") | {"reason": "refused: it is <slow>"})
    assert kinds(workspace) == []
    drawn = lineage_html(words_of(workspace))
    assert "refused: it is &lt;slow&gt;" in drawn
    assert 'class="branch"' in drawn


def test_a_canary_without_a_decision_waits_until_somebody_decides(workspace: Workspace) -> None:
    bundle = make_bundle(workspace.home.bundles, workspace.base)
    workspace.registry.add(bundle, judged("not better"))
    plan = {"candidate": bundle, "incumbent": None, "salt": "x", "share": 0.2}
    workspace.registry.append(CanaryStarted(bundle=bundle, plan=plan))
    assert kinds(workspace) == []
    assert "answers 20% of new conversations" in " ".join(words_of(workspace).loop())
    end = CanaryFigures(bundle=bundle, arms={}, decision="undecided")
    workspace.registry.append(end)
    assert kinds(workspace) == ["canary"]
    workspace.releases.promote(bundle, reason="people ask for it", force=True)
    assert kinds(workspace) == []


def test_a_round_that_failed_is_told_with_its_reason(workspace: Workspace) -> None:
    rounds = RoundStore(workspace.database)
    with rounds.lease.held():
        number = rounds.begin({"cause": "asked", "recipe": {}, "forced": True})
        rounds.record(number, "ended", {"outcome": "failed", "reason": "the disk is full"})
        rounds.record(number, "report", {})
    words = words_of(workspace)
    (need,) = words.desk.needs
    assert words.need(need) == "Round 1 failed: the disk is full"
    assert "failed (the disk is full)" in words.round()


def test_all_who_look_within_a_few_seconds_share_one_reading(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    refreshed, alerts, clock = [], [], Clock()
    refresh, find = workspace.training_set.refresh, workspace.alerts

    def counted_refresh(**options: bool) -> object:
        refreshed.append(options)
        return refresh(**options)

    def counted_alerts() -> list[dict[str, object]]:
        alerts.append(1)
        return find()

    monkeypatch.setattr(workspace.training_set, "refresh", counted_refresh)
    monkeypatch.setattr(workspace, "alerts", counted_alerts)
    desk = DeskReader(workspace, monotonic=clock)
    for _ in range(10):  # ten consoles
        desk.read()
    assert (len(refreshed), len(alerts)) == (1, 1)
    clock.seconds = DESK_SECONDS
    desk.read()
    assert (len(refreshed), len(alerts)) == (2, 1)
    clock.seconds = SLOW_SECONDS
    desk.read()
    assert (len(refreshed), len(alerts)) == (3, 2)
    desk.forget()  # the operator has done something
    desk.read()
    assert len(refreshed) == 4


def test_thumbs_are_drawn_by_day_and_release_with_their_interval(workspace: Workspace) -> None:
    for number in range(4):
        corrected(workspace, number, vote=1 if number else -1)
    words = DeskWords(DeskReader(workspace).read(), "en", time.time())
    drawn = desk_html(words, 3)
    # Wilson's interval of 3 of 4, by hand: (3 + 1.92 -+ 1.96 sqrt(0.75 + 0.96)) / 7.84
    assert "75% of 4 thumbs are up (30–95%)" in drawn
    assert drawn.count('class="dots live"') == 1
    assert drawn.count('class="count"') == 1


def test_what_starts_a_round_beside_enough_feedback_is_said(workspace: Workspace) -> None:
    desk = DeskReader(workspace).read()
    fall = RatingWatch(80, 0.8, 0.4, 30, fell=True)
    evidence = {"pairs": EvidenceCount(total=3, new=3, weight=1.0)}
    few = replace(desk, loop=replace(desk.loop, evidence=evidence, ratings=fall))
    said = DeskWords(few, "en", NOON).loop()[0]
    assert said.startswith("The new feedback is worth 3 pairs; 50 start a round of training.")
    assert said.endswith(
        "Thumbs up on the live release have fallen, which starts a round by itself."
    )


def test_a_release_says_what_it_learnt_from(workspace: Workspace) -> None:
    bundle = make_bundle(workspace.home.bundles, workspace.base)
    sources = {"pairs/comparison": 20, "pairs/votes": 5, "unpaired/vote": 7}
    workspace.registry.register(Registered(bundle=bundle, sources=sources))
    workspace.registry.add(bundle, judged("better"))
    drawn = lineage_html(words_of(workspace))
    assert "learnt from 25 pairs, 0 good answers and 7 lone thumbs" in drawn
    assert "+10 points against base (+2 to +18)" in drawn
