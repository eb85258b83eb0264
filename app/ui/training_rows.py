"""Texts of the console's training-data tab: rows of the table and the details of one row.

Pure functions from stored values to texts in the reader's language. Knows the store's readers;
knows nothing of widgets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.texts import say, translated
from engine.excerpts import one_line
from engine.messages import Message
from feedback_store.curation.decisions import Curation
from feedback_store.examples.explanation import TextChange, explain
from feedback_store.examples.split import split_of
from feedback_store.examples.types import Pair, SetAside, Unpaired
from feedback_store.records import CurrentVote, PromptEvidence
from feedback_store.view.candidates import Item

ROWS_A_PAGE = 50
PREVIEW_CHARS = 160
SideName = Literal["better", "worse", "good", "bad", "answer"]


def reason_of(row: Item) -> str:
    """Return the source of an example, or the reason why an item was set aside."""
    return row.reason if isinstance(row, SetAside) else row.source


@dataclass(frozen=True, slots=True)
class DisplayedRow:
    """A row with its texts. `sides` are one or two answers, each with its role and text."""

    row: Item
    prompt: tuple[Message, ...]
    sides: tuple[tuple[SideName, str], ...]

    @property
    def question(self) -> str:
        """The last question of the prompt."""
        return self.prompt[-1].content if self.prompt else ""

    def cells(self, number: int, language: str) -> list[str | int]:
        """Return a row of the table."""
        first, second = (*(text for _, text in self.sides), "", "")[:2]
        reason = translated(reason_of(self.row), language)
        if isinstance(self.row, Unpaired):
            reason += f" ({translated(self.sides[0][0], language)})"
        texts = (self.question, first, second)
        return [number, reason, *(one_line(text, PREVIEW_CHARS) for text in texts)]


def display_rows(rows: Sequence[Item], evidence: Iterable[PromptEvidence]) -> list[DisplayedRow]:
    """Return rows with their texts; those of items set aside are found in the evidence."""
    found = {answer.id: (each, answer.text) for each in evidence for answer in each.answers}
    return [_display_row(row, found) for row in rows]


def _display_row(row: Item, found: Mapping[str, tuple[PromptEvidence, str]]) -> DisplayedRow:
    if isinstance(row, SetAside):
        known = [found[answer_id] for answer_id in row.answer_ids if answer_id in found]
        prompt = known[0][0].prompt if known else ()
        return DisplayedRow(row, prompt, tuple(("answer", text) for _, text in known))
    if isinstance(row, Pair):
        return DisplayedRow(
            row, row.prompt, (("better", row.chosen.text), ("worse", row.rejected.text))
        )
    bad = isinstance(row, Unpaired) and not row.label
    return DisplayedRow(row, row.prompt, (("bad" if bad else "good", row.completion.text),))


@dataclass(frozen=True, slots=True)
class Detail:
    """The details of a row: facts as (key of the name, value), and a correction's changes."""

    facts: tuple[tuple[str, str], ...]
    changes: tuple[TextChange, ...] = ()


def detail(
    row: Item,
    evidence: Iterable[PromptEvidence],
    curation: Curation,
    base_digest: str,
    incumbent: str | None,
    names: Mapping[str, str],
    language: str,
) -> Detail:
    """Return the details of a row: statements, people, authors, the operator's decisions.

    `names` are people's names by their ids, where they have any.
    """
    about = _explanation(row, base_digest, incumbent)
    votes = [vote for each in evidence for vote in each.votes if vote.event_id in about["events"]]
    facts = {
        "reason": translated(reason_of(row), language),
        "policy": translated(about.get("policy", ""), language),
        **_side_facts(about, language),
        "events": ", ".join(map(str, about["events"])),
        "users": ", ".join(names.get(user, user) for user in about["users"]),
        "said": "\n".join(filter(None, (_vote_text(vote, language) for vote in votes))),
        "conversation": f"{about['conversation']} ({_split_text(about, curation, language)})",
        "decided": _decision_text(about["id"], curation, language),
        "id": _short(about["id"]),
    }
    return Detail(
        tuple((name, value) for name, value in facts.items() if value),
        tuple(about.get("changes", ())),
    )


def _explanation(row: Item, base_digest: str, incumbent: str | None) -> dict[str, Any]:
    """Return `explain` of an example, or the same facts of an item set aside."""
    if not isinstance(row, SetAside):
        return explain(row, base_digest, incumbent)
    return {
        "id": row.example_id,
        "events": list(row.event_ids),
        "users": list(row.user_ids),
        "conversation": row.conversation_id,
    }


def id_of(row: Item) -> str:
    """Return the id of the example that a row is or would have been."""
    return row.example_id if isinstance(row, SetAside) else row.id


def conversation_of(row: Item) -> str:
    """Return the id of the row's conversation."""
    return row.conversation_id if isinstance(row, SetAside) else row.origin.conversation_id


def answer_id_of(row: Item) -> str:
    """Return the id of the row's answer, the better one of a pair; "" if it has none."""
    named = row.answer_ids if isinstance(row, SetAside) else [s.answer_id for s in row.sides]
    return next(iter(named), "")


def _short(digest: str) -> str:
    """Return the beginning of a digest, which the commands accept."""
    return digest[:19]


def _side_facts(about: Mapping[str, Any], language: str) -> dict[str, str]:
    """Return the author of each side and its thought."""
    sides = {name: about[name] for name in ("chosen", "rejected", "completion") if name in about}
    writers = {name: _short(side["written_by"]) for name, side in sides.items()}
    written = {f"{name}_by": translated(writer, language) for name, writer in writers.items()}
    return written | {f"{name}_thought": side["thought"] for name, side in sides.items()}


def _vote_text(vote: CurrentVote, language: str) -> str:
    reasons = ", ".join(say(f"reasons.{reason}", language) for reason in vote.reasons)
    why = "; ".join(filter(None, (reasons, vote.comment)))
    return f"{translated('up' if vote.vote > 0 else 'down', language)}: {why}" if why else ""


def _split_text(about: Mapping[str, Any], curation: Curation, language: str) -> str:
    return translated(split_of(about["conversation"], gold=curation.gold()), language)


def _decision_text(example_id: str, curation: Curation, language: str) -> str:
    decision = curation.decisions().get(example_id)
    if decision is None:
        return ""
    action = translated(decision.action, language)
    return f"{action}: {decision.note}" if decision.note else action
