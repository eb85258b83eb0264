"""The examples of one prompt, from all that people say of its answers. Pure.

What counts is, in falling order: a correction, a choice between two answers, thumbs. A lone thumb
is not a pair (design decision). What cannot be used is set aside with its reason, never dropped
silently. What one prompt cannot tell, such as duplicates elsewhere, is `selection`'s.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.messages import question_index
from feedback_store.examples.rules import (
    CONTESTED,
    CUT_OFF,
    DEFAULT_RULES,
    FLAGGED,
    IDENTICAL,
    NO_CONSENT,
    NO_QUESTION,
    OUTRANKED,
    OUTVOTED,
    RESTS_ON_TOOLS,
    TIE,
    TOO_LONG,
    Rules,
)
from feedback_store.examples.text_comparison import read_the_same
from feedback_store.examples.trust import NO_TRUST, Trust, joint_verdict
from feedback_store.examples.types import (
    PERSON,
    Demonstration,
    DemonstrationSource,
    Examples,
    Origin,
    Pair,
    PairSource,
    SetAside,
    Side,
    Unpaired,
    UnpairedSource,
    example_id,
)
from feedback_store.records import (
    CurrentChoice,
    CurrentCorrection,
    CurrentStatement,
    CurrentVote,
    PromptEvidence,
    WrittenAnswer,
)

Events = Mapping[int, str]  # the user of each event


@dataclass(frozen=True, slots=True)
class Thumb:
    """The verdict of all voters on one answer, and the votes that agree with it."""

    is_up: bool
    events: Events


@dataclass
class PromptExamples(Examples):
    """The examples of one prompt, and what of its evidence is set aside.

    `topic` is a digest of what was asked, without the system prompt: examples of one topic may be
    duplicates.
    """

    topic: bytes = b""


def build_prompt_examples(
    evidence: PromptEvidence, rules: Rules = DEFAULT_RULES, trust: Trust = NO_TRUST
) -> PromptExamples:
    """Build the examples of one prompt; the same evidence gives the same examples."""
    return _PromptBuilder(evidence, rules, trust).build()


class _PromptBuilder:
    """One prompt's evidence on its way to examples."""

    def __init__(self, evidence: PromptEvidence, rules: Rules, trust: Trust) -> None:
        self._rules = rules
        self._trust = trust
        self._answers = {answer.id: answer for answer in evidence.answers}
        self._unusable: dict[str, str] = {}  # answer -> the reason why nothing can be learnt
        self._compared: set[frozenset[str]] = set()  # answers between which a choice decides
        self._contradicted: set[str] = set()  # liked and disliked answers that read the same
        self._bad: dict[str, dict[int, str]] = defaultdict(dict)  # answer -> events "both bad"
        self._evidence = evidence
        self._result = PromptExamples(topic=_topic(evidence))

    def build(self) -> PromptExamples:
        """Use corrections, then choices, then thumbs; what is left over stands alone."""
        votes, corrections, choices = self._consenting_statements()
        statements: list[CurrentStatement] = [*votes, *corrections, *choices]
        if question_index(self._evidence.prompt) is None:
            if statements:
                self._set_aside(NO_QUESTION, self._answers, _events(statements))
            return self._result
        self._check_answers(votes, choices)
        self._use_corrections(corrections)
        self._use_choices(choices, votes)
        thumbs = self._thumbs(votes, corrections)
        self._use_thumbs(thumbs)
        self._use_alone(thumbs)
        self._set_aside_outranked(statements)
        return self._result

    def _consenting_statements(
        self,
    ) -> tuple[list[CurrentVote], list[CurrentCorrection], list[CurrentChoice]]:
        """The statements of users who consent, if the user who asked consents, too."""
        evidence, refusing = self._evidence, self._rules.refusing_users
        nobody = evidence.user_id in refusing
        for said in evidence.statements:
            if nobody or said.user_id in refusing:
                self._set_aside(NO_CONSENT, (), _events([said]))
        if nobody:
            return [], [], []
        return (
            [vote for vote in evidence.votes if vote.user_id not in refusing],
            [said for said in evidence.corrections if said.user_id not in refusing],
            [choice for choice in evidence.choices if choice.user_id not in refusing],
        )

    def _check_answers(
        self, votes: Sequence[CurrentVote], choices: Sequence[CurrentChoice]
    ) -> None:
        """Set aside, once each, the judged answers that nothing can be learnt from."""
        judged: dict[str, dict[int, str]] = defaultdict(dict)
        for vote in votes:
            judged[vote.answer_id][vote.event_id] = vote.user_id
        for choice in choices:
            for answer_id in choice.answer_ids:
                judged[answer_id][choice.event_id] = choice.user_id
        for answer in self._evidence.answers:
            if reason := self._problem(answer):
                self._unusable[answer.id] = reason
                if answer.id in judged:
                    self._set_aside(reason, [answer.id], judged[answer.id])

    def _problem(self, answer: WrittenAnswer) -> str | None:
        flagged = FLAGGED if answer.id in self._evidence.flagged else None
        return self._rules.answer_problem(answer) or flagged

    # Corrections

    def _use_corrections(self, corrections: Iterable[CurrentCorrection]) -> None:
        """Prefer each corrected answer to the original, and demonstrate it."""
        for said in corrections:
            original, events = self._answers[said.answer_id], _events([said])
            if original.tool_calls:  # so do the words that correct it
                self._set_aside(RESTS_ON_TOOLS, [original.id], events)
                continue
            # The person corrected the answer, not the thought that led to it
            thought = "" if original.id in self._unusable else original.thought
            corrected = Side(
                said.text.strip(), thought, True, original.id, PERSON, None, original.thinking
            )
            if self._rules.is_too_long(corrected.text, corrected.thought):
                self._set_aside(TOO_LONG, [original.id], events)
                continue
            self._demonstrate(corrected, "correction", events)
            if reason := self._unusable.get(original.id):
                self._set_aside(reason, [original.id], events)
            else:
                self._pair(corrected, Side.of(original), "correction", events)

    # Choices

    def _use_choices(self, choices: Sequence[CurrentChoice], votes: Sequence[CurrentVote]) -> None:
        """Make a pair of each two answers whose judges agree."""
        # A user who compared the same two answers again: the later choice takes the place
        latest = {(choice.answer_ids, choice.user_id): choice for choice in choices}
        between: dict[frozenset[str], list[CurrentChoice]] = defaultdict(list)
        for (two, _), choice in latest.items():
            if not two & self._unusable.keys() and not _is_overtaken(choice, votes):
                between[two].append(choice)
        for two, said in between.items():
            self._compared.add(two)
            decided = [choice for choice in said if choice.winner]
            winners = {choice.winner for choice in decided if choice.winner}
            if len(winners) > 1:
                self._set_aside(CONTESTED, sorted(two), _events(said))
            elif winners:
                (loser,) = two - winners
                chosen, rejected = self._side(winners.pop()), self._side(loser)
                self._pair(chosen, rejected, "comparison", _events(decided))
            else:
                self._use_undecided(said, votes)

    def _use_undecided(self, said: Sequence[CurrentChoice], votes: Sequence[CurrentVote]) -> None:
        """Set aside ties; remember the answers of which a user said that both are bad."""
        for choice in said:
            two, event = sorted(choice.answer_ids), _events([choice])
            if choice.choice == "tie":
                self._set_aside(TIE, two, event)
                continue
            for answer_id in two:
                if answer_id not in _later_thumbs(choice, votes):
                    self._bad[answer_id] |= event

    # Thumbs

    def _thumbs(
        self, votes: Sequence[CurrentVote], corrections: Sequence[CurrentCorrection]
    ) -> dict[str, Thumb]:
        """The thumb of each usable answer with a clear verdict.

        A user who corrected an answer has said all about it: that user's thumb no longer counts.
        Nor do thumbs up for an answer that was called bad beside another one.
        """
        corrected = {(said.answer_id, said.user_id) for said in corrections}
        votes_on: dict[str, list[CurrentVote]] = defaultdict(list)
        for vote in votes:
            if (vote.answer_id, vote.user_id) not in corrected:
                votes_on[vote.answer_id].append(vote)
        thumbs: dict[str, Thumb] = {}
        for answer_id, said in votes_on.items():
            if answer_id in self._unusable:
                continue
            verdict = joint_verdict(said, self._trust)
            if verdict is None:
                self._set_aside(CONTESTED, [answer_id], _events(said))
                continue
            if dissenting := [vote for vote in said if vote.vote != verdict]:
                self._set_aside(OUTVOTED, [answer_id], _events(dissenting))
            if verdict < 0 or answer_id not in self._bad:
                agreeing = [vote for vote in said if vote.vote == verdict]
                thumbs[answer_id] = Thumb(verdict > 0, _events(agreeing))
        return thumbs

    def _use_thumbs(self, thumbs: Mapping[str, Thumb]) -> None:
        """Prefer each liked answer to each disliked one, unless a choice decides between them.

        An answer that is in as many pairs as the rules allow makes no more; what it would have been
        paired with stands alone then.
        """
        liked = {answer_id: thumb for answer_id, thumb in thumbs.items() if thumb.is_up}
        disliked = {answer_id: thumb for answer_id, thumb in thumbs.items() if not thumb.is_up}
        made: Counter[str] = Counter()
        for up, reasons in liked.items():
            for down, others in disliked.items():
                if frozenset((up, down)) in self._compared:
                    continue
                if max(made[up], made[down]) >= self._rules.max_thumb_pairs:
                    continue
                made.update((up, down))
                chosen, rejected = self._side(up), self._side(down)
                self._pair(chosen, rejected, "votes", {**reasons.events, **others.events})
                if read_the_same(chosen, rejected):
                    self._contradicted |= {up, down}

    # Lone judgements and demonstrations

    def _use_alone(self, thumbs: Mapping[str, Thumb]) -> None:
        """Demonstrate liked answers; judged answers that no pair uses are unpaired examples."""
        paired = {side.answer_id for pair in self._result.pairs for side in pair.sides}
        for answer_id, thumb in thumbs.items():
            if answer_id in self._contradicted:
                continue
            if thumb.is_up and self._answers[answer_id].complete:
                self._demonstrate(self._side(answer_id), "vote", thumb.events)
            if answer_id not in paired and answer_id not in self._bad:
                self._add_unpaired(answer_id, thumb.is_up, "vote", thumb.events)
        for answer_id, events in self._bad.items():
            if answer_id not in paired:
                self._add_unpaired(answer_id, False, "comparison", events)

    def _set_aside_outranked(self, statements: Sequence[CurrentStatement]) -> None:
        """Set aside the statements that no example and no other reason accounts for."""
        accounted = {e for example in self._result.every for e in example.origin.event_ids}
        accounted |= {e for item in self._result.set_aside for e in item.event_ids}
        for said in statements:
            if said.event_id not in accounted:
                self._set_aside(OUTRANKED, _answer_ids(said), _events([said]))

    # Results

    def _side(self, answer_id: str) -> Side:
        return Side.of(self._answers[answer_id])

    def _pair(self, chosen: Side, rejected: Side, source: PairSource, events: Events) -> None:
        origin = self._origin(events)
        own_id = example_id(source, (chosen, rejected), source, origin.user_ids)
        if reason := _pair_problem(chosen, rejected):
            self._set_aside(reason, [chosen.answer_id, rejected.answer_id], events, own_id)
            return
        pair = Pair(own_id, self._evidence.prompt, chosen, rejected, source, origin)
        self._result.pairs.append(pair)

    def _add_unpaired(
        self, answer_id: str, label: bool, source: UnpairedSource, events: Events
    ) -> None:
        side, origin = self._side(answer_id), self._origin(events)
        own_id = example_id("unpaired", (side,), source, origin.user_ids)
        example = Unpaired(own_id, self._evidence.prompt, side, label, source, origin)
        self._result.unpaired.append(example)

    def _demonstrate(self, side: Side, source: DemonstrationSource, events: Events) -> None:
        origin = self._origin(events)
        own_id = example_id("demonstration", (side,), source, origin.user_ids)
        example = Demonstration(own_id, self._evidence.prompt, side, source, origin)
        self._result.demonstrations.append(example)

    def _set_aside(
        self, reason: str, answer_ids: Iterable[str], events: Events, example_id: str = ""
    ) -> None:
        origin, answers = self._origin(events), tuple(dict.fromkeys(answer_ids))
        self._result.set_aside.append(
            SetAside(
                reason,
                origin.conversation_id,
                answers,
                origin.event_ids,
                origin.user_ids,
                example_id,
            )
        )

    def _origin(self, events: Events) -> Origin:
        conversation_id, template = self._evidence.conversation_id, self._evidence.template_hash
        users = tuple(dict.fromkeys(events.values()))
        asked_by = self._evidence.user_id
        return Origin(conversation_id, template, tuple(sorted(events)), users, asked_by)


def _topic(evidence: PromptEvidence) -> bytes:
    asked = (f"{m.role}:{m.transcript}" for m in evidence.prompt if m.role != "system")
    return hashlib.blake2b("\0".join(asked).encode(), digest_size=16).digest()


def _events(statements: Iterable[CurrentStatement]) -> dict[int, str]:
    return {said.event_id: said.user_id for said in statements}


def _answer_ids(said: CurrentStatement) -> list[str]:
    return sorted(said.answer_ids) if isinstance(said, CurrentChoice) else [said.answer_id]


def _later_thumbs(choice: CurrentChoice, votes: Sequence[CurrentVote]) -> dict[str, int]:
    """The votes of the same user after a choice, by answer."""
    return {
        vote.answer_id: vote.vote
        for vote in votes
        if vote.user_id == choice.user_id and vote.event_id > choice.event_id
    }


def _is_overtaken(choice: CurrentChoice, votes: Sequence[CurrentVote]) -> bool:
    """Return whether the same user told the two answers apart later, with opposite thumbs."""
    later = _later_thumbs(choice, votes)
    left, right = later.get(choice.left_answer_id, 0), later.get(choice.right_answer_id, 0)
    return left * right < 0


def _pair_problem(chosen: Side, rejected: Side) -> str | None:
    """The reason why a pair teaches nothing, or None."""
    if not chosen.complete:
        return CUT_OFF
    if read_the_same(chosen, rejected):
        return IDENTICAL
    return None
