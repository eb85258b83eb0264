"""From evidence to preference pairs. Pure functions: evidence in, pairs and reasons out.

A lone thumb is not a pair (design decision): pairs come from corrections (correction over
original) and from siblings of one turn with opposite votes. What cannot be used is set aside
with its reason and counted, never dropped silently.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from engine.messages import Message, is_blank
from engine.prompts.reasoning import join_reasoning
from feedback_store.records import Answer, Evidence

Source = Literal["correction", "votes"]
USABLE = ("done", "stopped")


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference: for this prompt, `chosen` is better than `rejected`.

    A side that is not complete was cut off (by the token limit or the Stop button), so its text
    does not end where an answer would; the renderer then adds no end token. A chain-of-thought
    side is thought and answer together, as the model made it.
    `event_ids` say why the pair is here; `conversation_id` is what splits and statistics group by.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    chosen_complete: bool
    rejected_complete: bool
    source: Source
    conversation_id: str
    turn_id: str
    template_hash: str
    event_ids: tuple[int, ...]
    user_ids: tuple[str, ...]
    chosen_adapter: str | None
    rejected_adapter: str | None

    def as_trl(self) -> dict[str, Any]:
        """TRL's conversational preference format, with the provenance beside it."""
        return {
            "prompt": [message.as_dict() for message in self.prompt],
            "chosen": [Message("assistant", self.chosen).as_dict()],
            "rejected": [Message("assistant", self.rejected).as_dict()],
            "chosen_complete": self.chosen_complete,
            "rejected_complete": self.rejected_complete,
            "source": self.source,
            "conversation_id": self.conversation_id,
            "turn_id": self.turn_id,
            "template_hash": self.template_hash,
            "event_ids": list(self.event_ids),
            "user_ids": list(self.user_ids),
            "chosen_adapter": self.chosen_adapter,
            "rejected_adapter": self.rejected_adapter,
        }


@dataclass
class Pairing:
    """What became of all evidence."""

    pairs: list[Pair] = field(default_factory=list)
    unpaired: int = 0  # answers with a clear vote that no pair uses
    set_aside: Counter[str] = field(default_factory=Counter)


def build_pairs(evidence: Iterable[Evidence]) -> Pairing:
    """All pairs, in the order of the evidence; the same evidence gives the same pairs."""
    result = Pairing()
    seen: set[tuple[object, ...]] = set()
    for item in evidence:
        used: set[str] = set()
        verdicts = _verdicts(item, result.set_aside)
        for pair, answer_ids in _candidates(item, verdicts):
            used |= answer_ids
            if reason := _refusal(pair, seen):
                result.set_aside[reason] += 1
            else:
                result.pairs.append(pair)
        result.unpaired += len(verdicts.keys() - used)
    return result


def _verdicts(item: Evidence, set_aside: Counter[str]) -> Mapping[str, int]:
    """+1 or -1 for each answer on which its voters agree and that can be trained on."""
    usable = {a.id for a in item.answers if a.status in USABLE and not is_blank(a.text)}
    votes: dict[str, set[int]] = {}
    for _, answer_id, _, vote in item.votes:
        if vote:
            votes.setdefault(answer_id, set()).add(vote)
    set_aside["contested"] += sum(len(values) > 1 for values in votes.values())
    set_aside["empty or aborted answer"] += sum(answer_id not in usable for answer_id in votes)
    return {
        answer_id: values.copy().pop()
        for answer_id, values in votes.items()
        if len(values) == 1 and answer_id in usable
    }


def _candidates(item: Evidence, verdicts: Mapping[str, int]) -> Iterator[tuple[Pair, set[str]]]:
    """Pairs before the refusals, each with the answers it uses."""
    answers = {answer.id: answer for answer in item.answers}
    for event_id, answer_id, user_id, correction in item.corrections:
        original = answers[answer_id]
        corrected = replace(
            original, text=correction.strip(), complete=True, adapter_digest=None
        )  # the person corrected the answer, not the thought that led to it
        events = {event_id: user_id}
        yield _pair(item, corrected, original, "correction", events), {answer_id}
    voters = {
        answer_id: (event_id, user_id) for event_id, answer_id, user_id, vote in item.votes if vote
    }
    ups = [answers[a] for a, vote in verdicts.items() if vote > 0]
    downs = [answers[a] for a, vote in verdicts.items() if vote < 0]
    for up in ups:
        for down in downs:
            events = dict([voters[up.id], voters[down.id]])
            yield _pair(item, up, down, "votes", events), {up.id, down.id}


def _pair(
    item: Evidence, chosen: Answer, rejected: Answer, source: Source, events: Mapping[int, str]
) -> Pair:
    return Pair(
        prompt=item.prompt,
        chosen=join_reasoning(chosen.thought, chosen.text),
        rejected=join_reasoning(rejected.thought, rejected.text),
        chosen_complete=chosen.complete,
        rejected_complete=rejected.complete,
        source=source,
        conversation_id=item.turn.conversation_id,
        turn_id=item.turn.id,
        template_hash=item.turn.template_hash,
        event_ids=tuple(events),
        user_ids=tuple(dict.fromkeys(events.values())),
        chosen_adapter=chosen.adapter_digest,
        rejected_adapter=rejected.adapter_digest,
    )


def _refusal(pair: Pair, seen: set[tuple[object, ...]]) -> str | None:
    """Why a pair teaches nothing; None where it does."""
    if is_blank(pair.chosen) or is_blank(pair.rejected):
        return "empty or aborted answer"
    if not pair.chosen_complete:
        return "chosen answer is cut off"
    key = (pair.prompt, _normal(pair.chosen), _normal(pair.rejected))
    if key[1] == key[2]:
        return "identical after normalisation"
    if key in seen:
        return "duplicate"
    seen.add(key)
    return None


def _normal(text: str) -> str:
    """Text with the differences removed that no reader would call a preference."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
