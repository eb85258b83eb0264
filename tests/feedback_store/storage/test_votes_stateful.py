"""Whatever people do, in whatever order, the store says what a few lists in memory say."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.errors import InvalidInput, UnknownId
from feedback_store.privacy.erasure import forget_user
from feedback_store.records import BAD_REASONS, CHOICES, GOOD_REASONS
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.storage.turns import new_id
from tests.feedback_store.conftest import Conversations, sqlite_url

USERS = ("ann", "bob")
REASONS: dict[int, tuple[str, ...]] = {1: GOOD_REASONS, -1: BAD_REASONS, 0: ()}
CURRENT = ("vote", "correction", "choice", "flag")  # the latest counts; of the others, each one

users = st.sampled_from(USERS)
votes = st.sampled_from((1, -1, 0))
kinds = st.sampled_from(("flag", "copy", "regeneration"))
places = st.integers(0, 10**6)  # of an answer or a comparison, modulo how many there are
comments = st.sampled_from(("", "Why not?", "\N{LEAF FLUTTERING IN WIND}\u202e 'x' %s"))


@dataclass
class Model:
    """What the store should hold."""

    answers: dict[str, str] = field(default_factory=dict)  # id -> whose
    turn_of: dict[str, int] = field(default_factory=dict)  # answer -> turn
    comparisons: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # whose, two answers
    events: list[tuple[str, str, str, Any]] = field(default_factory=list)  # user, kind, about, what
    keys: dict[tuple[str, str], None] = field(default_factory=dict)
    turns: int = 0

    def add(self, user: str, key: str, kind: str, about: str, what: Any = None) -> None:
        if (user, key) not in self.keys:
            self.keys[user, key] = None
            self.events.append((user, kind, about, what))

    def current(self, kind: str) -> dict[tuple[str, str], Any]:
        """(about, user) -> what was said last."""
        return {(about, user): what for user, k, about, what in self.events if k == kind}

    def counts(self) -> dict[str, int]:
        thumbs = [what[0] for what in self.current("vote").values()]

        def of(kind: str) -> int:
            return len(self.current(kind)) if kind in CURRENT else self.done(kind)

        return {
            "turns": len(set(self.turn_of.values())),
            "answers": len(self.answers),
            "votes": len(thumbs) - thumbs.count(0),
            "votes_up": thumbs.count(1),
            "votes_down": thumbs.count(-1),
            "corrections": of("correction"),
            "comparisons": of("choice"),
            "flags": of("flag"),
            "regenerations": of("regeneration"),
            "copies": of("copy"),
        }

    def done(self, kind: str) -> int:
        return sum(k == kind for _, k, _, _ in self.events)

    def forget(self, user: str) -> None:
        self.answers = {a: whose for a, whose in self.answers.items() if whose != user}
        self.turn_of = {a: turn for a, turn in self.turn_of.items() if a in self.answers}
        self.comparisons = {c: each for c, each in self.comparisons.items() if each[0] != user}
        self.events = [event for event in self.events if event[0] != user]
        self.keys = {key: None for key in self.keys if key[0] != user}


class Feedback(RuleBasedStateMachine):
    """Two people and one store."""

    migrated: Path  # a database file with all tables

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(self.migrated, self.folder / "burnish.db")
        self.database = Database(sqlite_url(self.folder))
        self.store = FeedbackStore(self.database)
        self.talk = Conversations(self.store)
        self.model = Model()

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)

    # What people do

    @rule(user=users)
    def ask(self, user: str) -> None:
        self._answered(self.talk.ask(user=user, conversation=f"of {user}"), user, self.model.turns)
        self.model.turns += 1

    @precondition(lambda self: self.model.answers)
    @rule(place=places)
    def regenerate(self, place: int) -> None:
        answer_id, user = self._answer(place)
        sibling = self.talk.again(answer_id, "Another.", user=user)
        self._answered(sibling, user, self.model.turn_of[answer_id])
        self.store.note(answer_id, user, "regeneration", idempotency_key=sibling)
        self.model.add(user, sibling, "regeneration", answer_id)

    @precondition(lambda self: self.model.answers)
    @rule(place=places, vote=votes, reasons=st.data(), comment=comments)
    def vote(self, place: int, vote: Any, reasons: st.DataObject, comment: str) -> None:
        answer_id, user = self._answer(place)
        words = reasons.draw(st.lists(st.sampled_from(REASONS[vote] or ("",)), max_size=3))
        words = [word for word in words if word]
        key = new_id()
        self.store.vote(answer_id, user, vote, reasons=words, comment=comment, idempotency_key=key)
        self.model.add(user, key, "vote", answer_id, (vote, tuple(sorted(set(words))), comment))

    @precondition(lambda self: self.model.answers)
    @rule(place=places, text=st.sampled_from(("Better.", "Best.")))
    def correct(self, place: int, text: str) -> None:
        answer_id, user = self._answer(place)
        key = new_id()
        self.store.correct(answer_id, user, text, idempotency_key=key)
        self.model.add(user, key, "correction", answer_id, text)

    @precondition(lambda self: self.model.answers)
    @rule(place=places, kind=kinds)
    def note(self, place: int, kind: Any) -> None:
        answer_id, user = self._answer(place)
        key = new_id()
        self.store.note(answer_id, user, kind, idempotency_key=key)
        self.model.add(user, key, kind, answer_id)

    @precondition(lambda self: self.model.answers)
    @rule(one=places, other=places)
    def compare(self, one: int, other: int) -> None:
        left, user = self._answer(one)
        turn = self.model.turn_of[left]
        siblings = [a for a, t in self.model.turn_of.items() if t == turn]
        right = siblings[other % len(siblings)]
        if left == right:
            with pytest.raises(InvalidInput):
                self.store.compare(left, right, user)
        else:
            comparison = self.store.compare(left, right, user)
            self.model.comparisons[comparison.id] = (user, left, right)

    @precondition(lambda self: self.model.comparisons)
    @rule(place=places, choice=st.sampled_from(CHOICES))
    def choose(self, place: int, choice: Any) -> None:
        comparison_id = [*self.model.comparisons][place % len(self.model.comparisons)]
        user, key = self.model.comparisons[comparison_id][0], new_id()
        self.store.choose(comparison_id, user, choice, idempotency_key=key)
        self.model.add(user, key, "choice", comparison_id, choice)

    # What changes nothing

    @precondition(lambda self: self.model.events)
    @rule(place=places, vote=votes)
    def replay(self, place: int, vote: Any) -> None:
        """A key that was seen before, with whatever else."""
        user, key = [*self.model.keys][place % len(self.model.keys)]
        answer_id = next(a for a, whose in self.model.answers.items() if whose == user)
        self.store.vote(answer_id, user, vote, idempotency_key=key)
        self.store.correct(answer_id, user, "Replayed.", idempotency_key=key)
        self.store.note(answer_id, user, "flag", idempotency_key=key)

    @rule(place=places, user=users, known=st.booleans())
    def meddle(self, place: int, user: str, known: bool) -> None:
        """With an answer or a comparison that is somebody else's, or nobody's."""
        foreign = [a for a, whose in self.model.answers.items() if whose != user]
        answer_id = foreign[place % len(foreign)] if known and foreign else new_id()
        foreign = [c for c, each in self.model.comparisons.items() if each[0] != user]
        comparison_id = foreign[place % len(foreign)] if known and foreign else new_id()
        meddling: list[Callable[[], object]] = [
            lambda: self.store.vote(answer_id, user, 1),
            lambda: self.store.correct(answer_id, user, "Mine."),
            lambda: self.store.note(answer_id, user, "flag"),
            lambda: self.store.compare(answer_id, answer_id, user),
            lambda: self.store.choose(comparison_id, user, "left"),
        ]
        for meddle in meddling:
            with pytest.raises(UnknownId):
                meddle()

    # Forgetting

    @rule(user=users)
    def forget(self, user: str) -> None:
        if user in self.model.answers.values():
            forget_user(self.database, user)
            self.model.forget(user)
        else:
            with pytest.raises(UnknownId):
                forget_user(self.database, user)

    # What must hold

    @invariant()
    def the_store_counts_what_the_model_counts(self) -> None:
        assert self.store.counts() == self.model.counts()
        assert self.store.event_count() == len(self.model.events)

    @invariant()
    def the_evidence_is_what_was_said_last(self) -> None:
        evidence = list(EvidenceReader(self.database).all())
        assert {
            (v.answer_id, v.user_id): (v.vote, v.reasons, v.comment)
            for e in evidence
            for v in e.votes
        } == {key: what for key, what in self.model.current("vote").items() if what[0]}
        assert {
            (c.answer_id, c.user_id): c.text for e in evidence for c in e.corrections
        } == self.model.current("correction")
        assert {a for e in evidence for a in e.flagged} == {
            about for about, _ in self.model.current("flag")
        }
        assert sorted(
            (c.user_id, c.left_answer_id, c.right_answer_id, c.choice)
            for e in evidence
            for c in e.choices
        ) == sorted(
            (*self.model.comparisons[about], choice)
            for (about, _), choice in self.model.current("choice").items()
        )

    def _answered(self, answer_id: str, user: str, turn: int) -> None:
        self.model.answers[answer_id] = user
        self.model.turn_of[answer_id] = turn

    def _answer(self, place: int) -> tuple[str, str]:
        answer_id = [*self.model.answers][place % len(self.model.answers)]
        return answer_id, self.model.answers[answer_id]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("examples", "steps"), [(4, 25), pytest.param(60, 50, marks=pytest.mark.slow)]
)
def test_any_order_of_what_people_do_keeps_the_invariants(
    migrated: Path, monkeypatch: pytest.MonkeyPatch, examples: int, steps: int
) -> None:
    monkeypatch.setattr(Feedback, "migrated", migrated, raising=False)
    run_state_machine_as_test(
        Feedback,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
