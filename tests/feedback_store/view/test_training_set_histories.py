"""The incremental view equals the definition after any history."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from engine.errors import UnknownId
from feedback_store.curation.decisions import Curation
from feedback_store.examples.building import build_examples
from feedback_store.examples.rules import Rules
from feedback_store.examples.types import EXAMPLE_KINDS
from feedback_store.privacy.erasure import forget_user
from feedback_store.records import CHOICES, AnswerStatus, ChoiceValue, VoteValue
from feedback_store.storage import tables
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import PLAIN, Conversations, sqlite_url
from tests.feedback_store.helpers import examples_now, judged

PEOPLE = st.sampled_from(["ann", "bob"])
TEXTS = st.sampled_from(["A leaf.", "a  LEAF.", "A tree.", "It is 7.", "It is 8.", " "])
RULES = Rules(max_answer_chars=100, user_share=0.6, user_floor=2)
MAX_IMPORTS = 2  # so few shared votes that each change is a tenth of them


class Life(RuleBasedStateMachine):
    """People talk and judge, the operator decides; a training set looks on all the while."""

    migrated: Path
    answers = Bundle("answers")  # (answer id, whose turn it is)

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        shutil.copy(self.migrated, self._folder.name)
        self._database = Database(sqlite_url(Path(self._folder.name)))
        self._store = FeedbackStore(self._database)
        self._talk = Conversations(self._store)
        self._curation = Curation(self._database)
        self._watching = self._training_set()
        self._imports = 0
        self._gone: set[str] = set()

    def _training_set(self) -> TrainingSet:
        return TrainingSet(EvidenceReader(self._database), self._curation, RULES)

    def teardown(self) -> None:
        self._database.close()
        self._folder.cleanup()

    @rule(
        target=answers,
        user=PEOPLE,
        text=TEXTS,
        question=st.sampled_from(["What is a leaf?", "Why?"]),
        place=st.sampled_from(["1", "2"]),
    )
    def ask(self, user: str, text: str, question: str, place: str) -> tuple[str, str]:
        return self._talk.ask(question, text, user=user, conversation=user + place), user

    @rule(target=answers, answer=answers, text=TEXTS)
    def follow(self, answer: tuple[str, str], text: str) -> tuple[str, str]:
        answer_id, user = answer
        if answer_id in self._gone:
            return answer
        place = self._store.turn_of(answer_id, user).conversation_id
        return self._talk.ask("And?", text, user=user, conversation=place, parent=answer_id), user

    @rule(target=answers, answer=answers, text=TEXTS)
    def regenerate(self, answer: tuple[str, str], text: str) -> tuple[str, str]:
        answer_id, user = answer
        if answer_id in self._gone:
            return answer
        return self._talk.again(answer_id, text, user=user), user

    @rule(
        target=answers,
        answer=answers,
        vote=st.sampled_from([1, -1]),
        text=TEXTS,
        status=st.sampled_from(["done", "stopped", "failed"]),
    )
    def judge_while_it_streams(
        self, answer: tuple[str, str], vote: VoteValue, text: str, status: AnswerStatus
    ) -> tuple[str, str]:
        answer_id, user = answer
        if answer_id in self._gone:
            return answer
        streaming = self._talk.begin(self._store.turn_of(answer_id, user).id)
        self._store.vote(streaming, user, vote)
        self._watching.refresh()
        return self._talk.finish(streaming, text, status), user

    @rule(answer=answers, vote=st.sampled_from([1, -1, 0]))
    def vote(self, answer: tuple[str, str], vote: VoteValue) -> None:
        if answer[0] not in self._gone:
            self._store.vote(*answer, vote)

    @rule(answer=answers, text=TEXTS.filter(str.strip))
    def correct(self, answer: tuple[str, str], text: str) -> None:
        if answer[0] not in self._gone:
            self._store.correct(*answer, text)

    @rule(answer=answers, text=TEXTS, choice=st.sampled_from(CHOICES))
    def compare(self, answer: tuple[str, str], text: str, choice: ChoiceValue) -> None:
        answer_id, user = answer
        if answer_id not in self._gone:
            other = self._talk.again(answer_id, text, user=user)
            comparison = self._store.compare(answer_id, other, user)
            self._store.choose(comparison.id, user, choice)

    @rule(answer=answers)
    def flag(self, answer: tuple[str, str]) -> None:
        if answer[0] not in self._gone:
            self._store.note(*answer, "flag")

    @rule(place=st.integers(0, 9), decision=st.sampled_from(["exclude", "edit", "take back"]))
    def decide(self, place: int, decision: Literal["exclude", "edit", "take back"]) -> None:
        decided = sorted(self._curation.decisions())
        examples = examples_now(self._watching).every
        if decision == "take back" and decided:
            self._curation.take_back(decided[place % len(decided)])
        elif decision == "exclude" and examples:
            self._curation.exclude(examples[place % len(examples)])
        elif decision == "edit" and examples:
            self._curation.edit(examples[place % len(examples)], chosen="A leaf.")

    @rule(user=PEOPLE, allowed=st.booleans())
    def consent(self, user: str, allowed: bool) -> None:
        self._curation.set_consent(user, allowed)

    @precondition(lambda self: self._imports < MAX_IMPORTS)
    @rule(target=answers, others=st.sampled_from(["+-", "++", "--", "+"]))
    def import_what_others_judged(self, others: str) -> tuple[str, str]:
        """An answer of Ann's import, on which others voted; she may vote as well."""
        before = self._answer_ids()
        names = [f"other-{number}" for number in range(len(others))]
        turn = judged(zip(names, others, strict=True), f"Import {self._imports}.")
        self._store.add_imported([turn], PLAIN, "ann")
        self._imports += 1
        (answer_id,) = self._answer_ids() - before
        return answer_id, "ann"

    @rule(user=PEOPLE)
    def forget(self, user: str) -> None:
        before = self._answer_ids()
        with suppress(UnknownId):  # of whom nothing is known
            forget_user(self._database, user)
        self._gone |= before - self._answer_ids()

    @invariant()
    def the_view_equals_the_definition(self) -> None:
        self._watching.refresh()
        kept, examples = self._watching.load_examples()
        rules = replace(RULES, refusing_users=self._curation.refusing())
        evidence = EvidenceReader(self._database).all()
        anew = build_examples(evidence, self._curation.decisions(), rules)
        assert (examples.pairs, examples.unpaired) == (anew.pairs, anew.unpaired)
        assert examples.demonstrations == anew.demonstrations
        assert Counter(examples.set_aside) == Counter(anew.set_aside)
        assert kept.flip_rate == examples.flip_rate == anew.flip_rate
        assert [kept.count(kind) for kind in EXAMPLE_KINDS] == [
            len(anew.of_kind(kind)) for kind in EXAMPLE_KINDS
        ]
        assert kept.counts["set_aside"] == anew.set_aside_counts

    def _answer_ids(self) -> set[str]:
        with self._database.read() as connection:
            return set(connection.execute(sa.select(tables.answers.c.id)).scalars())


@pytest.mark.integration
@pytest.mark.parametrize(
    ("examples", "steps"), [(6, 12), pytest.param(60, 30, marks=pytest.mark.slow)]
)
def test_the_refreshed_view_equals_the_definition_after_any_history(
    migrated: Path, monkeypatch: pytest.MonkeyPatch, examples: int, steps: int
) -> None:
    monkeypatch.setattr("feedback_store.examples.trust.ROUNDS", 2)  # both sides do the same
    Life.migrated = migrated
    Life.TestCase.settings = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None
    )
    Life.TestCase("runTest").debug()
