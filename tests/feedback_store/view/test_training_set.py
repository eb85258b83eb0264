"""The examples of now: the same as if all evidence were read anew, at the price of what is new."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pytest
import sqlalchemy as sa

from feedback_store.curation.decisions import Curation
from feedback_store.examples import selection
from feedback_store.examples.rules import DUPLICATE, TOO_LONG, Rules
from feedback_store.examples.types import TrainingExample
from feedback_store.privacy.erasure import forget_user
from feedback_store.records import ExampleDecision, PromptEvidence
from feedback_store.storage import tables
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import Conversations
from tests.feedback_store.helpers import examples_now


class Watched(EvidenceReader):
    """Remembers which conversations were read; fails once when told to."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.read: list[str] = []
        self.fails = False

    def of(self, conversation_ids: Iterable[str]) -> Iterator[PromptEvidence]:
        wanted = sorted(conversation_ids)
        self.read += wanted
        if self.fails:
            self.fails = False
            raise OSError("the disk is gone")
        return super().of(wanted)


@pytest.fixture
def reader(database: Database, store: FeedbackStore) -> Watched:
    return Watched(database)


@pytest.fixture
def watched(reader: Watched, curation: Curation) -> TrainingSet:
    return TrainingSet(reader, curation)


# What is read again


def test_only_what_was_judged_since_the_last_look_is_read_again(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, reader: Watched
) -> None:
    answers = {name: talk.ask(conversation=name) for name in ("c1", "c2", "c3")}
    for answer_id in answers.values():
        store.vote(answer_id, "ann", 1)
    watched.refresh()
    assert reader.read == ["c1", "c2", "c3"]
    reader.read.clear()
    store.vote(answers["c2"], "ann", -1)
    assert [each.label for each in examples_now(watched).unpaired] == [True, False]
    assert reader.read == ["c2"]


def test_a_look_at_nothing_new_reads_nothing(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, reader: Watched
) -> None:
    store.vote(talk.ask(), "ann", 1)
    first = watched.refresh()
    reader.read.clear()
    store.note(talk.ask(conversation="c2"), "ann", "copy")  # no judgement
    again = watched.refresh()
    assert (reader.read, again.counts) == ([], first.counts)
    assert again.last_event == first.last_event + 1


def test_an_answer_that_was_judged_while_it_streamed_counts_once_it_ended(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, reader: Watched
) -> None:
    turn = store.turn_of(talk.ask(), "ann")
    streaming = talk.begin(turn.id)
    store.vote(streaming, "ann", 1)
    examples = examples_now(watched)
    assert (examples.unpaired, examples.set_aside_counts) == ([], {"empty or aborted answer": 1})
    talk.finish(streaming, "A leaf at last.")  # no event tells of it
    assert [e.completion.text for e in examples_now(watched).unpaired] == ["A leaf at last."]
    reader.read.clear()
    watched.refresh()
    assert reader.read == []


def test_consent_is_heard_at_the_next_look_wherever_the_person_spoke(
    store: FeedbackStore,
    talk: Conversations,
    watched: TrainingSet,
    curation: Curation,
    reader: Watched,
) -> None:
    store.vote(talk.ask(), "ann", 1)
    store.vote(talk.ask(text="A tree.", user="bob", conversation="c2"), "bob", 1)
    assert len(examples_now(watched).unpaired) == 2
    reader.read.clear()
    curation.set_consent("bob", False)
    examples = examples_now(watched)
    assert [e.origin.user_ids for e in examples.unpaired] == [("ann",)]
    assert (reader.read, examples.set_aside_counts) == (["c2"], {"no consent": 1})
    curation.set_consent("bob", True)
    assert len(examples_now(watched).unpaired) == 2


def test_a_decision_is_heard_at_the_next_look_which_reads_its_conversation_alone(
    store: FeedbackStore,
    talk: Conversations,
    watched: TrainingSet,
    curation: Curation,
    reader: Watched,
) -> None:
    store.correct(talk.ask(text="A lef."), "ann", "A leaf.")
    store.vote(talk.ask("Why?", conversation="c2"), "ann", 1)
    (pair,) = examples_now(watched).pairs
    reader.read.clear()
    curation.exclude(pair)
    assert examples_now(watched).pairs == []
    curation.take_back(pair.id)
    assert examples_now(watched).pairs == [pair]
    assert reader.read == ["c1", "c1"]


def test_a_forgotten_person_is_gone_at_the_next_look(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, database: Database
) -> None:
    store.vote(talk.ask(), "ann", 1)
    store.vote(talk.ask(text="A tree.", user="bob", conversation="c2"), "bob", 1)
    assert len(examples_now(watched).unpaired) == 2
    forget_user(database, "bob")
    assert [e.origin.user_ids for e in examples_now(watched).unpaired] == [("ann",)]


def test_what_a_failed_look_missed_is_seen_by_the_next(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, reader: Watched
) -> None:
    store.vote(talk.ask(), "ann", 1)
    reader.fails = True
    with pytest.raises(OSError, match="the disk is gone"):
        watched.refresh()
    assert len(examples_now(watched).unpaired) == 1


def test_what_one_process_derived_another_does_not_read_again(
    store: FeedbackStore,
    talk: Conversations,
    watched: TrainingSet,
    database: Database,
    curation: Curation,
) -> None:
    store.vote(talk.ask(), "ann", 1)
    store.vote(talk.ask(text="A tree.", conversation="c2"), "ann", -1)
    watched.refresh()
    other = Watched(database)
    assert TrainingSet(other, curation).refresh().count("unpaired") == 2
    assert other.read == []


def test_two_processes_that_look_in_turns_agree(
    store: FeedbackStore, talk: Conversations, database: Database, curation: Curation
) -> None:
    one, two = (TrainingSet(EvidenceReader(database), curation) for _ in range(2))
    for n in range(4):
        store.vote(talk.ask(f"Question {n}?", conversation=f"c{n}"), "ann", 1)
        looker = (one, two)[n % 2]
        assert looker.refresh().count("demonstrations") == n + 1
    assert one.refresh().counts == two.refresh().counts


def test_another_process_that_was_faster_is_not_overwritten(
    store: FeedbackStore, talk: Conversations, database: Database, curation: Curation
) -> None:
    """While one derives from older evidence, another has derived from newer."""
    answer = talk.ask()
    store.vote(answer, "ann", 1)
    other = TrainingSet(EvidenceReader(database), curation)

    class Slow(EvidenceReader):
        overtaken = False

        def of(self, conversation_ids: Iterable[str]) -> Iterator[PromptEvidence]:
            found = list(super().of(conversation_ids))
            if not self.overtaken:
                self.overtaken = True
                store.vote(answer, "ann", -1)
                other.refresh()
            return iter(found)

    slow = TrainingSet(Slow(database), curation)
    assert [example.label for example in examples_now(slow).unpaired] == [False]


def test_other_numbers_of_the_rules_derive_everything_anew(
    store: FeedbackStore,
    talk: Conversations,
    watched: TrainingSet,
    database: Database,
    curation: Curation,
) -> None:
    store.vote(talk.ask(text="A rather long answer."), "ann", 1)
    assert watched.refresh().count("unpaired") == 1
    strict = TrainingSet(EvidenceReader(database), curation, Rules(max_answer_chars=10))
    assert strict.refresh().counts["set_aside"] == {TOO_LONG: 1}


def test_other_code_of_the_rules_derives_everything_anew(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release in which nothing is a duplicate: its code has another digest."""
    for user in ("ann", "bob"):
        store.vote(talk.ask(user=user, conversation=user), user, -1)
    assert watched.refresh().counts["set_aside"] == {DUPLICATE: 1}
    monkeypatch.setattr("feedback_store.examples.selection.NEAR", 2)
    assert watched.refresh().counts["set_aside"] == {DUPLICATE: 1}
    monkeypatch.setattr("feedback_store.view.version.source_digest", lambda _files: "other code")
    assert (watched.refresh().count("unpaired"), watched.refresh().count("set_aside")) == (2, 0)


def test_a_query_writes_nothing(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, database: Database
) -> None:
    store.vote(talk.ask(), "ann", 1)
    before = watched.refresh()
    store.vote(talk.ask(conversation="c2"), "ann", -1)
    with database.read() as connection:
        stored = [connection.execute(sa.select(table)).all() for table in tables.DERIVED]
    summary, examples = watched.load_examples()
    assert (watched.summary(), summary) == (before, before)
    assert [e.label for e in examples.unpaired] == [True]
    assert watched.page("unpaired")[1] == 1
    watched.find(examples.unpaired[0].id)
    with database.read() as connection:
        assert stored == [connection.execute(sa.select(table)).all() for table in tables.DERIVED]


def test_of_those_alike_the_next_takes_the_place_of_one_that_goes(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, database: Database
) -> None:
    """Ann's answer came first; then hers is gone, and the operator has Bob's excluded."""
    store.vote(talk.ask(user="ann", conversation="a"), "ann", -1)
    store.vote(talk.ask(user="bob", conversation="b"), "bob", -1)
    store.vote(talk.ask(user="cid", conversation="c"), "cid", -1)
    users = [e.origin.user_ids for e in examples_now(watched).unpaired]
    assert (users, watched.refresh().counts["set_aside"]) == ([("ann",)], {"duplicate": 2})
    forget_user(database, "ann")
    (second,) = examples_now(watched).unpaired
    assert second.origin.user_ids == ("bob",)
    Curation(database).exclude(second)
    (third,) = examples_now(watched).unpaired
    assert third.origin.user_ids == ("cid",)
    Curation(database).take_back(second.id)
    assert examples_now(watched).unpaired == [second]


def test_of_a_question_that_many_ask_only_the_newest_is_read(
    store: FeedbackStore,
    talk: Conversations,
    watched: TrainingSet,
    reader: Watched,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("feedback_store.view.deduplication.NEIGHBOURS", 3)
    for n in range(8):
        store.vote(talk.ask(text=f"It is {n}.", conversation=f"c{n}"), "ann", -1)
    assert watched.refresh().count("unpaired") == 8
    store.vote(talk.ask(text="It is 0.", conversation="new"), "ann", -1)
    compared: list[int] = []
    reasons_against = selection.reasons_against

    def counted(
        alike: Iterable[TrainingExample], decisions: Mapping[str, ExampleDecision]
    ) -> list[str | None]:
        some = list(alike)
        compared.append(len(some))
        return reasons_against(some, decisions)

    monkeypatch.setattr("feedback_store.view.deduplication.reasons_against", counted)
    assert watched.refresh().count("unpaired") == 9  # the first is no neighbour any more
    assert compared == [3 + 1]
