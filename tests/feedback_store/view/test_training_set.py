"""The examples of now: the same as if all evidence were read anew, at the price of what is new."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from engine.errors import UnknownId
from engine.messages import Message
from feedback_store.curation.decisions import Curation
from feedback_store.examples import selection
from feedback_store.examples.building import build_examples
from feedback_store.examples.rules import DUPLICATE, TOO_LONG, Rules
from feedback_store.examples.types import EXAMPLE_KINDS, SetAside, TrainingExample
from feedback_store.formats import Ranks, import_file
from feedback_store.privacy.erasure import forget_user
from feedback_store.records import (
    CHOICES,
    AnswerStatus,
    ChoiceValue,
    ExampleDecision,
    ImportedAnswer,
    ImportedTurn,
    ImportedVote,
    PromptEvidence,
    VoteValue,
)
from feedback_store.storage import tables
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet
from tests.feedback_store.conftest import PLAIN, Conversations, sqlite_url
from tests.feedback_store.helpers import examples_now, real

QUESTION = (Message("user", "What is a leaf?"),)


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


def judged(
    answers: Iterable[tuple[str, str]], text: str = "A leaf.", user: str = "importer"
) -> ImportedTurn:
    """An imported answer with the thumbs of several people: (user, "+" or "-")."""
    votes = tuple(ImportedVote(user, 1 if vote == "+" else -1) for user, vote in answers)
    return ImportedTurn(QUESTION, (ImportedAnswer(text, votes=votes),))


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


# Pages


def test_rows_come_page_by_page_in_the_order_people_spoke(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    for n in range(5):
        store.vote(talk.ask(f"Question {n}?", conversation=f"c{9 - n}"), "ann", 1)
    training_set.refresh()
    rows, total = training_set.page("demonstrations", first=1, count=2)
    shown = [row.prompt[-1].content for row in rows if not isinstance(row, SetAside)]
    assert shown == ["Question 1?", "Question 2?"]
    assert total == 5
    assert training_set.page("demonstrations", "vote", first=4)[1] == 5
    assert training_set.page("demonstrations", "correction") == ([], 0)


def test_a_search_finds_words_in_questions_answers_and_corrections(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    store.correct(talk.ask("Where is the SEA?", "Far off.", conversation="c1"), "ann", "Near by.")
    store.vote(talk.ask("Who?", "A 100% sailor.", conversation="c2"), "ann", -1)
    store.vote(talk.ask("\u8c01?", "\u6211.", conversation="c3"), "ann", -1)
    store.note(talk.ask("Bad?", "A curse.", conversation="c4"), "ann", "flag")
    training_set.refresh()

    def found(place: str, words: str) -> int:
        rows, total = training_set.page(place, search=words)
        assert len(rows) == total
        return total

    assert [found("pairs", words) for words in ("the sea", "FAR", " near ", "sailor")] == [
        1,
        1,
        1,
        0,
    ]
    assert [found("unpaired", w) for w in ("100%", "\u6211", "1_0%", "sea")] == [1, 1, 0, 0]
    assert (found("set_aside", "sailor"), found("demonstrations", "near by")) == (0, 1)


def test_an_example_is_found_by_the_beginning_of_its_id(
    store: FeedbackStore, talk: Conversations, training_set: TrainingSet
) -> None:
    store.correct(talk.ask(text="A lef."), "ann", "A leaf.")
    (pair,) = examples_now(training_set).pairs
    assert training_set.find(pair.id[:20]) == pair
    for beginning in ("sha256:", "sha256:" + "z" * 64, "%"):  # several begin so; none does
        with pytest.raises(UnknownId, match="no one example's id begins"):
            training_set.find(beginning)


# Trust


def test_votes_of_several_people_are_weighed(
    store: FeedbackStore, training_set: TrainingSet
) -> None:
    """Three of whom little is known outvote one (16 to 1 is over 0.9); two against one do not."""
    store.add_imported(
        [
            judged([("a", "+"), ("b", "+"), ("c", "+"), ("d", "-")], "Three to one."),
            judged([("a", "+"), ("b", "+"), ("e", "-")], "Two to one."),
        ],
        PLAIN,
        "importer",
    )
    examples = examples_now(training_set, reestimate=True)
    assert [e.completion.text for e in examples.unpaired] == ["Three to one."]
    assert len(examples.unpaired[0].origin.user_ids) == 3
    assert examples.set_aside_counts == {"contested": 1, "outvoted": 1}


def test_a_flipped_vote_changes_the_verdict_that_others_share(
    store: FeedbackStore, training_set: TrainingSet
) -> None:
    """The number of votes stays the same; what they say does not."""
    turn = judged([("a", "+"), ("b", "+"), ("importer", "+"), ("d", "-")])
    store.add_imported([turn], PLAIN, "importer")
    assert [e.label for e in examples_now(training_set, reestimate=True).unpaired] == [True]
    (liked,) = examples_now(training_set).demonstrations
    store.vote(liked.completion.answer_id, "importer", -1)
    assert examples_now(training_set, reestimate=True).set_aside_counts == {"contested": 1}


def test_who_does_not_consent_does_not_tip_the_scales(
    store: FeedbackStore, training_set: TrainingSet, curation: Curation
) -> None:
    store.add_imported(
        [judged([("a", "+"), ("b", "+"), ("c", "+"), ("d", "-")])], PLAIN, "importer"
    )
    assert len(examples_now(training_set, reestimate=True).unpaired) == 1
    for user in ("b", "c"):
        curation.set_consent(user, False)
    examples = examples_now(training_set, reestimate=True)
    assert examples.unpaired == []
    assert examples.set_aside_counts == {"contested": 1, "no consent": 2}


# Whatever happens

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


# Real files, through the importers and the pair builder


class Imported:
    """A store into which one real file was imported: its evidence and the examples of it."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        file = real(name)
        database = Database(sqlite_url(folder))
        import_file(FeedbackStore(database), file, **options)
        reader = EvidenceReader(database)
        self.evidence = list(reader.all())
        self.examples = examples_now(TrainingSet(reader, Curation(database)), reestimate=True)
        database.close()

    def aside(self, *reasons: str, kind: int) -> int:
        """How many pairs (2) or lone examples (1) were set aside for these reasons."""
        return sum(
            item.reason in reasons and len(item.answer_ids) == kind
            for item in self.examples.set_aside
        )


@pytest.mark.integration
@pytest.mark.parametrize(("ranks", "count"), [("all", 618), ("adjacent", 341)])
def test_every_ranked_pair_of_oasst_is_a_pair_or_set_aside(
    tmp_path: Path, ranks: Ranks, count: int
) -> None:
    imported = Imported(tmp_path, "oasst_trees_dev.jsonl", ranks=ranks)
    ranked = {choice.event_id for evidence in imported.evidence for choice in evidence.choices}
    paired = [
        event
        for pair in imported.examples.pairs
        for event in pair.origin.event_ids
        if pair.source == "comparison"
    ]
    aside = {event for item in imported.examples.set_aside for event in item.event_ids}
    assert len(ranked) == count
    assert len(paired) == len(set(paired))
    assert set(paired) <= ranked
    assert ranked - set(paired) == ranked & aside


@pytest.mark.integration
def test_thumbs_and_ranks_of_oasst_agree_as_often_as_is_known(tmp_path: Path) -> None:
    signs: Counter[int] = Counter()
    opposite = 0
    for evidence in Imported(tmp_path, "oasst_trees_dev.jsonl").evidence:
        net: Counter[str] = Counter()
        for vote in evidence.votes:
            net[vote.answer_id] += vote.vote
        for choice in evidence.choices:
            better, worse = net[choice.left_answer_id], net[choice.right_answer_id]
            signs[(better > worse) - (better < worse)] += 1
            opposite += better * worse < 0
    assert (opposite, signs) == (102, {1: 299, -1: 170, 0: 149})


def test_every_right_and_wrong_solution_of_gsm8k_is_a_pair_or_a_duplicate(tmp_path: Path) -> None:
    imported = Imported(tmp_path, "gsm8k_solutions_dev600.jsonl")
    assert imported.examples.set_aside_counts.keys() == {"duplicate", "near-duplicate"}
    duplicates = imported.aside("duplicate", "near-duplicate", kind=2)
    assert len(imported.examples.pairs) + duplicates == 1_056
    assert {pair.source for pair in imported.examples.pairs} == {"votes"}


@pytest.mark.parametrize(
    ("name", "repeated"),
    [("llamafactory_dpo_en_demo.json", 5), ("llamafactory_dpo_zh_demo.json", 11)],
)
def test_each_preference_of_a_file_is_one_pair_or_a_duplicate(
    tmp_path: Path, name: str, repeated: int
) -> None:
    """Of two records with the same prompt no pairs are made across them."""
    examples = Imported(tmp_path, name).examples
    assert len(examples.pairs) == 300 - repeated
    assert examples.set_aside_counts == {"duplicate": repeated}
    assert (examples.unpaired, examples.demonstrations) == ([], [])


def test_each_lone_judgement_of_a_file_is_used(tmp_path: Path) -> None:
    """Two of the 150 good and 150 bad completions answer the same prompt, and so are a pair."""
    examples = Imported(tmp_path, "llamafactory_kto_en_demo.json").examples
    labels = Counter(example.label for example in examples.unpaired)
    assert (labels, len(examples.pairs)) == ({True: 149, False: 149}, 1)
    assert (len(examples.demonstrations), examples.set_aside) == (150, [])
