"""From evidence to examples, prompt by prompt. Pure: evidence in, examples and reasons out.

A lone thumb is not a pair (design decision). For one prompt, what counts is, in falling order: a
correction, a choice between two answers, thumbs. What cannot be used is set aside with its reason,
never dropped silently. What one prompt cannot tell, such as duplicates elsewhere, is `selection`'s.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from engine.messages import is_blank, question_index
from feedback_store.examples.types import (
    PERSON,
    Demonstration,
    DemonstrationSource,
    Example,
    Origin,
    Pair,
    PairSource,
    Side,
    Unpaired,
    UnpairedSource,
    example_id,
)
from feedback_store.records import (
    Answer,
    CurrentChoice,
    CurrentCorrection,
    CurrentVote,
    Evidence,
)

USABLE = ("done", "stopped")
IDENTICAL = "identical after normalisation"
NO_QUESTION = "the prompt does not end with a question"
NO_CONSENT = "no consent"
OUTRANKED = "a stronger or later statement counts"

Statement = CurrentVote | CurrentCorrection | CurrentChoice
_Thumb = tuple[bool, dict[int, str]]  # whether it is up, and the events that say so
# Of the votes on one answer: +1 or -1, or None where they are contested
Verdict = Callable[[Sequence[CurrentVote]], int | None]


@dataclass(frozen=True, slots=True)
class Rules:
    """What evidence must be like to become an example."""

    max_answer_chars: int = 8_000
    # So many pairs may thumbs make of one answer: after a hundred regenerations one thumb would
    # else count a hundred times
    max_thumb_pairs: int = 8
    refusing_users: frozenset[str] = frozenset()  # whose words may not be trained on


@dataclass(frozen=True, slots=True)
class SetAside:
    """Evidence that no example uses, and why."""

    reason: str
    conversation_id: str
    answer_ids: tuple[str, ...]
    event_ids: tuple[int, ...]
    user_ids: tuple[str, ...]
    example_id: str = ""  # where it would have been an example


@dataclass
class PromptExamples:
    """What became of one prompt's evidence. `topic` is a digest of what was asked, without the
    system prompt: examples of one topic may be duplicates."""

    topic: bytes = b""
    pairs: list[Pair] = field(default_factory=list)
    unpaired: list[Unpaired] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)

    @property
    def examples(self) -> Iterator[Example]:
        """All of them, pairs first."""
        yield from self.pairs
        yield from self.unpaired
        yield from self.demonstrations


def unanimous(votes: Sequence[CurrentVote]) -> int | None:
    """The verdict that all voters share."""
    values = {vote.vote for vote in votes}
    return values.pop() if len(values) == 1 else None


def build_examples(
    evidence: Evidence, rules: Rules | None = None, verdict: Verdict = unanimous
) -> PromptExamples:
    """The examples of one prompt; the same evidence gives the same examples."""
    return _Builder(evidence, rules or Rules(), verdict).build()


def normal(text: str) -> str:
    """Text without the differences that no reader would call a preference."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def read_the_same(one: Side, other: Side) -> bool:
    """Whether no reader would tell two sides apart."""
    return normal(one.full_text) == normal(other.full_text)


class _Builder:
    """One prompt's evidence on its way to examples. `events` are event id -> user."""

    def __init__(self, evidence: Evidence, rules: Rules, verdict: Verdict) -> None:
        self._evidence = evidence
        self._rules = rules
        self._verdict = verdict
        self._answers = {answer.id: answer for answer in evidence.answers}
        self._unusable: dict[str, str] = {}  # answer -> why nothing can be learnt from it
        self._settled: set[frozenset[str]] = set()  # answers that a choice stands between
        self._contradicted: set[str] = set()  # liked and disliked answers that read the same
        self._result = PromptExamples(_topic(evidence))

    def build(self) -> PromptExamples:
        """Corrections, then choices, then thumbs; what is left over stands alone."""
        votes, corrections, choices = self._statements()
        said: list[Statement] = [*votes, *corrections, *choices]
        if question_index(self._evidence.prompt) is None:
            if said:
                self._aside(NO_QUESTION, [*self._answers], {s.event_id: s.user_id for s in said})
            return self._result
        self._look_at_answers(votes, choices)
        for correction in corrections:
            self._add_correction(correction)
        bad = self._add_choices(choices, votes)
        thumbs = self._thumbs(votes, corrections, bad)
        self._add_thumb_pairs(thumbs)
        self._add_lone(thumbs, bad)
        self._add_outranked(said)
        return self._result

    def _statements(
        self,
    ) -> tuple[list[CurrentVote], list[CurrentCorrection], list[CurrentChoice]]:
        """What those say who let it be trained on, if who asked lets it too."""
        evidence, refusing = self._evidence, self._rules.refusing_users
        everything = evidence.user_id in refusing
        everybody: tuple[Statement, ...] = (
            *evidence.votes,
            *evidence.corrections,
            *evidence.choices,
        )
        refused = {s.event_id for s in everybody if everything or s.user_id in refusing}
        for said in everybody:
            if said.event_id in refused:
                self._aside(NO_CONSENT, (), {said.event_id: said.user_id})
        return (
            [vote for vote in evidence.votes if vote.event_id not in refused],
            [said for said in evidence.corrections if said.event_id not in refused],
            [choice for choice in evidence.choices if choice.event_id not in refused],
        )

    def _look_at_answers(
        self, votes: Sequence[CurrentVote], choices: Sequence[CurrentChoice]
    ) -> None:
        """Set aside, once each, the judged answers that nothing can be learnt from."""
        events: dict[str, dict[int, str]] = defaultdict(dict)
        for vote in votes:
            events[vote.answer_id][vote.event_id] = vote.user_id
        for choice in choices:
            for answer_id in (choice.left_answer_id, choice.right_answer_id):
                events[answer_id][choice.event_id] = choice.user_id
        for answer in self._evidence.answers:
            if reason := self._fault(answer):
                self._unusable[answer.id] = reason
                if answer.id in events:
                    self._aside(reason, [answer.id], events[answer.id])

    def _fault(self, answer: Answer) -> str | None:
        if answer.status not in USABLE or is_blank(answer.text):
            return "empty or aborted answer"
        if len(answer.text) + len(answer.thought) > self._rules.max_answer_chars:
            return "answer over the length limit"
        if answer.id in self._evidence.flagged:
            return "red-flagged text"
        return None

    # Corrections

    def _add_correction(self, said: CurrentCorrection) -> None:
        """The corrected answer over the original, and as a demonstration."""
        original, events = self._answers[said.answer_id], {said.event_id: said.user_id}
        # The person corrected the answer, not the thought that led to it
        thought = "" if original.id in self._unusable else original.thought
        corrected = Side(said.text.strip(), thought, True, original.id, PERSON, None)
        if len(corrected.full_text) > self._rules.max_answer_chars:
            self._aside("answer over the length limit", [original.id], events)
            return
        self._demonstrate(corrected, "correction", events)
        if reason := self._unusable.get(original.id):
            self._aside(reason, [original.id], events)
        else:
            self._pair(corrected, _side(original), "correction", events)

    # Choices

    def _add_choices(
        self, choices: Sequence[CurrentChoice], votes: Sequence[CurrentVote]
    ) -> dict[str, dict[int, str]]:
        """A pair for each two answers whose judges agree; returns the answers called bad."""
        # A user who compared the same two answers again: the later choice takes the place
        latest = {(_between(choice), choice.user_id): choice for choice in choices}
        between: dict[frozenset[str], list[CurrentChoice]] = defaultdict(list)
        for (two, _), choice in latest.items():
            if not two & self._unusable.keys() and not _overtaken(choice, votes):
                between[two].append(choice)
        bad: dict[str, dict[int, str]] = defaultdict(dict)
        for two, said in between.items():
            self._settled.add(two)
            winners = {winner for choice in said if (winner := _winner(choice))}
            events = {choice.event_id: choice.user_id for choice in said}
            if len(winners) > 1:
                self._aside("contested", sorted(two), events)
            elif winners:
                (loser,) = two - winners
                self._pair(self._side(winners.pop()), self._side(loser), "comparison", events)
            else:
                self._add_undecided(said, votes, bad)
        return bad

    def _add_undecided(
        self,
        said: Sequence[CurrentChoice],
        votes: Sequence[CurrentVote],
        bad: dict[str, dict[int, str]],
    ) -> None:
        """A tie teaches nothing; two bad answers are added to `bad`."""
        for choice in said:
            two, event = sorted(_between(choice)), {choice.event_id: choice.user_id}
            if choice.choice == "tie":
                self._aside("tie", two, event)
                continue
            for answer_id in two:
                if answer_id not in _later_thumbs(choice, votes):
                    bad[answer_id] |= event

    # Thumbs

    def _thumbs(
        self,
        votes: Sequence[CurrentVote],
        corrections: Sequence[CurrentCorrection],
        bad: Mapping[str, dict[int, str]],
    ) -> dict[str, _Thumb]:
        """Each usable answer with a clear verdict.

        Who corrected an answer has said all about it; that person's thumb no longer counts. Nor
        do thumbs up for an answer that was called bad beside another one.
        """
        corrected = {(c.answer_id, c.user_id) for c in corrections}
        votes_on: dict[str, list[CurrentVote]] = defaultdict(list)
        for vote in votes:
            if (vote.answer_id, vote.user_id) not in corrected:
                votes_on[vote.answer_id].append(vote)
        thumbs: dict[str, _Thumb] = {}
        for answer_id, said in votes_on.items():
            if answer_id in self._unusable:
                continue
            verdict = self._verdict(said)
            if verdict is None:
                self._aside("contested", [answer_id], {v.event_id: v.user_id for v in said})
                continue
            if dissenting := {v.event_id: v.user_id for v in said if v.vote != verdict}:
                self._aside("outvoted", [answer_id], dissenting)
            if verdict < 0 or answer_id not in bad:
                agreeing = {v.event_id: v.user_id for v in said if v.vote == verdict}
                thumbs[answer_id] = verdict > 0, agreeing
        return thumbs

    def _add_thumb_pairs(self, thumbs: Mapping[str, _Thumb]) -> None:
        """Each liked answer over each disliked one, unless a choice stands between the two.

        An answer that is in many pairs already makes no more; what it would have been paired with
        stands alone then.
        """
        made: Counter[str] = Counter()
        for up, (liked, reasons) in thumbs.items():
            for down, (not_disliked, others) in thumbs.items():
                if not liked or not_disliked or frozenset((up, down)) in self._settled:
                    continue
                if max(made[up], made[down]) >= self._rules.max_thumb_pairs:
                    continue
                made.update((up, down))
                chosen, rejected = self._side(up), self._side(down)
                self._pair(chosen, rejected, "votes", reasons | others)
                if read_the_same(chosen, rejected):
                    self._contradicted |= {up, down}

    # What stands alone

    def _add_lone(self, thumbs: Mapping[str, _Thumb], bad: Mapping[str, dict[int, str]]) -> None:
        """Liked answers are demonstrations; judged answers that no pair uses are unpaired."""
        paired = {side.answer_id for pair in self._result.pairs for side in pair.sides}
        for answer_id, (liked, events) in thumbs.items():
            if answer_id in self._contradicted:
                continue
            if liked and self._answers[answer_id].complete:
                self._demonstrate(self._side(answer_id), "vote", events)
            if answer_id not in paired and answer_id not in bad:
                self._unpaired(answer_id, liked, "vote", events)
        for answer_id, events in bad.items():
            if answer_id not in paired:
                self._unpaired(answer_id, False, "comparison", events)

    def _add_outranked(self, statements: Sequence[Statement]) -> None:
        """Set aside what no example and no other reason accounts for."""
        accounted = {e for example in self._result.examples for e in example.origin.event_ids}
        accounted |= {e for aside in self._result.set_aside for e in aside.event_ids}
        for said in statements:
            if said.event_id not in accounted:
                self._aside(OUTRANKED, _answers_of(said), {said.event_id: said.user_id})

    # Results

    def _side(self, answer_id: str) -> Side:
        return _side(self._answers[answer_id])

    def _pair(
        self, chosen: Side, rejected: Side, source: PairSource, events: Mapping[int, str]
    ) -> None:
        origin = self._origin(events)
        own_id = example_id(source, (chosen, rejected), source, origin.user_ids)
        if reason := _refusal(chosen, rejected):
            self._aside(reason, [chosen.answer_id, rejected.answer_id], events, own_id)
            return
        self._result.pairs.append(
            Pair(own_id, self._evidence.prompt, chosen, rejected, source, origin)
        )

    def _unpaired(
        self, answer_id: str, label: bool, source: UnpairedSource, events: Mapping[int, str]
    ) -> None:
        side, origin = self._side(answer_id), self._origin(events)
        own_id = example_id("unpaired", (side,), source, origin.user_ids)
        self._result.unpaired.append(
            Unpaired(own_id, self._evidence.prompt, side, label, source, origin)
        )

    def _demonstrate(
        self, side: Side, source: DemonstrationSource, events: Mapping[int, str]
    ) -> None:
        origin = self._origin(events)
        own_id = example_id("demonstration", (side,), source, origin.user_ids)
        self._result.demonstrations.append(
            Demonstration(own_id, self._evidence.prompt, side, source, origin)
        )

    def _origin(self, events: Mapping[int, str]) -> Origin:
        evidence = self._evidence
        return Origin(
            evidence.conversation_id,
            evidence.template_hash,
            tuple(sorted(events)),
            tuple(dict.fromkeys(events.values())),
        )

    def _aside(
        self,
        reason: str,
        answer_ids: Sequence[str],
        events: Mapping[int, str],
        example_id: str = "",
    ) -> None:
        origin = self._origin(events)
        self._result.set_aside.append(
            SetAside(
                reason,
                origin.conversation_id,
                tuple(dict.fromkeys(answer_ids)),
                origin.event_ids,
                origin.user_ids,
                example_id,
            )
        )


def _topic(evidence: Evidence) -> bytes:
    asked = (f"{m.role}:{m.content}" for m in evidence.prompt if m.role != "system")
    return hashlib.blake2b("\0".join(asked).encode(), digest_size=16).digest()


def _side(answer: Answer) -> Side:
    return Side(
        answer.text,
        answer.thought,
        answer.complete,
        answer.id,
        answer.base_digest,
        answer.adapter_digest,
    )


def _winner(choice: CurrentChoice) -> str | None:
    return {"left": choice.left_answer_id, "right": choice.right_answer_id}.get(choice.choice)


def _between(choice: CurrentChoice) -> frozenset[str]:
    return frozenset((choice.left_answer_id, choice.right_answer_id))


def _answers_of(said: Statement) -> Sequence[str]:
    return sorted(_between(said)) if isinstance(said, CurrentChoice) else [said.answer_id]


def _later_thumbs(choice: CurrentChoice, votes: Sequence[CurrentVote]) -> dict[str, int]:
    """What the same user said of answers after the choice."""
    return {
        vote.answer_id: vote.vote
        for vote in votes
        if vote.user_id == choice.user_id and vote.event_id > choice.event_id
    }


def _overtaken(choice: CurrentChoice, votes: Sequence[CurrentVote]) -> bool:
    """Whether the same user told the two answers apart later, with opposite thumbs."""
    later = _later_thumbs(choice, votes)
    left, right = later.get(choice.left_answer_id, 0), later.get(choice.right_answer_id, 0)
    return left * right < 0


def _refusal(chosen: Side, rejected: Side) -> str | None:
    """Why a pair teaches nothing; None where it does."""
    if not chosen.complete:
        return "chosen answer is cut off"
    if read_the_same(chosen, rejected):
        return IDENTICAL
    return None
