"""The examples of now: the same as if all evidence were read anew, at the price of what is new."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from sqlalchemy import select

from engine.errors import UnknownId
from engine.messages import Message
from feedback_store import tables
from feedback_store.curation import Curation
from feedback_store.database import Database
from feedback_store.evidence import EvidenceReader
from feedback_store.formats import Ranks, import_file
from feedback_store.pairing import Rules
from feedback_store.privacy.erasure import forget_user
from feedback_store.records import (
    CHOICES,
    AnswerStatus,
    Choice,
    Evidence,
    ImportedAnswer,
    ImportedTurn,
    ImportedVote,
    Vote,
)
from feedback_store.store import FeedbackStore
from feedback_store.training_set import TrainingSet
from tests.feedback_store.conftest import PLAIN, Conversations, sqlite_url
from tests.feedback_store.helpers import real

QUESTION = (Message("user", "What is a leaf?"),)


class Watched(EvidenceReader):
    """Remembers which conversations were read; fails once when told to."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.read: list[str] = []
        self.fails = False

    def of(self, conversation_ids: Iterable[str]) -> Iterator[Evidence]:
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
    watched.select()
    assert reader.read == ["c1", "c2", "c3"]
    reader.read.clear()
    store.vote(answers["c2"], "ann", -1)
    assert [each.label for each in watched.select().examples.unpaired] == [True, False]
    assert reader.read == ["c2"]


def test_a_look_at_nothing_new_reads_nothing(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, reader: Watched
) -> None:
    store.vote(talk.ask(), "ann", 1)
    first = watched.select()
    reader.read.clear()
    store.note(talk.ask(conversation="c2"), "ann", "copy")  # no judgement
    again = watched.select()
    assert (reader.read, again.examples) == ([], first.examples)
    assert again.last_event == first.last_event + 1


def test_an_answer_that_was_judged_while_it_streamed_counts_once_it_ended(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, reader: Watched
) -> None:
    turn = store.turn_of(talk.ask(), "ann")
    streaming = talk.begin(turn.id)
    store.vote(streaming, "ann", 1)
    examples = watched.select().examples
    assert (examples.unpaired, examples.set_aside_counts) == ([], {"empty or aborted answer": 1})
    talk.finish(streaming, "A leaf at last.")  # no event tells of it
    assert [e.completion.text for e in watched.select().examples.unpaired] == ["A leaf at last."]
    reader.read.clear()
    watched.select()
    assert reader.read == []


def test_consent_is_heard_at_the_next_look_wherever_the_person_spoke(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, curation: Curation,
    reader: Watched,
) -> None:  # fmt: skip
    store.vote(talk.ask(), "ann", 1)
    store.vote(talk.ask(text="A tree.", user="bob", conversation="c2"), "bob", 1)
    assert len(watched.select().examples.unpaired) == 2
    reader.read.clear()
    curation.set_consent("bob", False)
    examples = watched.select().examples
    assert [e.origin.user_ids for e in examples.unpaired] == [("ann",)]
    assert (reader.read, examples.set_aside_counts) == (["c2"], {"no consent": 1})
    curation.set_consent("bob", True)
    assert len(watched.select().examples.unpaired) == 2


def test_a_decision_is_heard_at_the_next_look_without_reading_evidence(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, curation: Curation,
    reader: Watched,
) -> None:  # fmt: skip
    store.correct(talk.ask(text="A lef."), "ann", "A leaf.")
    (pair,) = watched.select().examples.pairs
    reader.read.clear()
    curation.exclude(pair)
    assert watched.select().examples.pairs == []
    curation.take_back(pair.id)
    assert watched.select().examples.pairs == [pair]
    assert reader.read == []


def test_a_forgotten_person_is_gone_at_the_next_look(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, database: Database
) -> None:
    store.vote(talk.ask(), "ann", 1)
    store.vote(talk.ask(text="A tree.", user="bob", conversation="c2"), "bob", 1)
    assert len(watched.select().examples.unpaired) == 2
    forget_user(database, "bob")
    assert [e.origin.user_ids for e in watched.select().examples.unpaired] == [("ann",)]


def test_what_a_failed_look_missed_is_seen_by_the_next(
    store: FeedbackStore, talk: Conversations, watched: TrainingSet, reader: Watched
) -> None:
    store.vote(talk.ask(), "ann", 1)
    reader.fails = True
    with pytest.raises(OSError, match="the disk is gone"):
        watched.select()
    assert len(watched.select().examples.unpaired) == 1


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
    examples = training_set.settle().examples
    assert [e.completion.text for e in examples.unpaired] == ["Three to one."]
    assert len(examples.unpaired[0].origin.user_ids) == 3
    assert examples.set_aside_counts == {"contested": 1, "outvoted": 1}


def test_a_flipped_vote_changes_the_verdict_that_others_share(
    store: FeedbackStore, training_set: TrainingSet
) -> None:
    """The number of votes stays the same; what they say does not."""
    turn = judged([("a", "+"), ("b", "+"), ("importer", "+"), ("d", "-")])
    store.add_imported([turn], PLAIN, "importer")
    assert [e.label for e in training_set.settle().examples.unpaired] == [True]
    (liked,) = training_set.select().examples.demonstrations
    store.vote(liked.completion.answer_id, "importer", -1)
    assert training_set.settle().examples.set_aside_counts == {"contested": 1}


def test_who_does_not_consent_does_not_tip_the_scales(
    store: FeedbackStore, training_set: TrainingSet, curation: Curation
) -> None:
    store.add_imported(
        [judged([("a", "+"), ("b", "+"), ("c", "+"), ("d", "-")])], PLAIN, "importer"
    )
    assert len(training_set.settle().examples.unpaired) == 1
    for user in ("b", "c"):
        curation.set_consent(user, False)
    examples = training_set.settle().examples
    assert examples.unpaired == []
    assert examples.set_aside_counts == {"contested": 1, "no consent": 2}


# Whatever happens

PEOPLE = st.sampled_from(["ann", "bob"])
TEXTS = st.sampled_from(["A leaf.", "a  LEAF.", "A tree.", "It is 7.", "It is 8.", " "])
RULES = Rules(max_answer_chars=100)
MAX_IMPORTS = 2  # so few shared votes that each change is a tenth of them


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and nothing in them."""
    folder = tmp_path_factory.mktemp("empty")
    database = Database(sqlite_url(folder))
    FeedbackStore(database)
    database.close()
    return folder / "burnish.db"


class Life(RuleBasedStateMachine):
    """People talk and judge, the operator decides; a training set looks on all the while."""

    empty: Path
    answers = Bundle("answers")  # (answer id, whose turn it is)

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        shutil.copy(self.empty, self._folder.name)
        self._database = Database(sqlite_url(Path(self._folder.name)))
        self._store = FeedbackStore(self._database)
        self._talk = Conversations(self._store)
        self._curation = Curation(self._database)
        self._watching = self._training_set()
        self._imports = 0
        self._gone: set[str] = set()

    def _training_set(self) -> TrainingSet:
        return TrainingSet(
            EvidenceReader(self._database), self._curation, RULES, user_share=0.6, user_floor=2
        )

    def teardown(self) -> None:
        self._database.close()
        self._folder.cleanup()

    @rule(
        target=answers, user=PEOPLE, text=TEXTS,
        question=st.sampled_from(["What is a leaf?", "Why?"]), place=st.sampled_from(["1", "2"]),
    )  # fmt: skip
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
        target=answers, answer=answers, vote=st.sampled_from([1, -1]), text=TEXTS,
        status=st.sampled_from(["done", "stopped", "failed"]),
    )  # fmt: skip
    def judge_while_it_streams(
        self, answer: tuple[str, str], vote: Vote, text: str, status: AnswerStatus
    ) -> tuple[str, str]:
        answer_id, user = answer
        if answer_id in self._gone:
            return answer
        streaming = self._talk.begin(self._store.turn_of(answer_id, user).id)
        self._store.vote(streaming, user, vote)
        self._watching.select()
        return self._talk.finish(streaming, text, status), user

    @rule(answer=answers, vote=st.sampled_from([1, -1, 0]))
    def vote(self, answer: tuple[str, str], vote: Vote) -> None:
        if answer[0] not in self._gone:
            self._store.vote(*answer, vote)

    @rule(answer=answers, text=TEXTS.filter(str.strip))
    def correct(self, answer: tuple[str, str], text: str) -> None:
        if answer[0] not in self._gone:
            self._store.correct(*answer, text)

    @rule(answer=answers, text=TEXTS, choice=st.sampled_from(CHOICES))
    def compare(self, answer: tuple[str, str], text: str, choice: Choice) -> None:
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
        examples = self._watching.select().examples.every
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
    def what_was_kept_up_to_date_equals_what_is_read_anew(self) -> None:
        kept, anew = self._watching.select(), self._training_set().settle()
        assert kept.examples == anew.examples
        assert (kept.last_event, kept.trust) == (anew.last_event, anew.trust)

    def _answer_ids(self) -> set[str]:
        with self._database.read() as connection:
            return set(connection.execute(select(tables.answers.c.id)).scalars())


def test_whatever_happens_what_is_kept_up_to_date_equals_what_is_read_anew(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback_store.trust.ROUNDS", 2)  # to be quick; both sides do the same
    Life.empty = empty
    Life.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
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
        self.examples = TrainingSet(reader, Curation(database)).settle().examples
        database.close()

    def aside(self, *reasons: str, kind: int) -> int:
        """How many pairs (2) or lone examples (1) were set aside for these reasons."""
        return sum(
            item.reason in reasons and len(item.answer_ids) == kind
            for item in self.examples.set_aside
        )


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
