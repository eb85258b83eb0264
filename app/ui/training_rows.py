"""What the console says of training data: which rows, page by page, and all about one of them.

Values in, texts out, in the language of whoever looks. Knows the store's readers; knows nothing of
widgets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.ui.texts import say, translated
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
    """Why a row is where it is: the sort of statement it rests on, or what spoke against it."""
    return row.reason if isinstance(row, SetAside) else row.source


@dataclass(frozen=True, slots=True)
class DisplayedRow:
    """A row with its words. `sides` are one or two answers: what each is to be, and its text."""

    row: Item
    prompt: tuple[Message, ...]
    sides: tuple[tuple[SideName, str], ...]

    @property
    def question(self) -> str:
        """What was asked."""
        return self.prompt[-1].content if self.prompt else ""

    def cells(self, number: int, language: str) -> list[str | int]:
        """A line of the table."""
        first, second = (*(text for _, text in self.sides), "", "")[:2]
        reason = translated(reason_of(self.row), language)
        if isinstance(self.row, Unpaired):
            reason += f" ({translated(self.sides[0][0], language)})"
        return [number, reason, *map(_preview, (self.question, first, second))]


def display_rows(rows: Sequence[Item], evidence: Iterable[PromptEvidence]) -> list[DisplayedRow]:
    """Rows with their words. What is set aside has its words in the evidence alone."""
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


def _preview(text: str) -> str:
    line = " ".join(text[: 2 * PREVIEW_CHARS].split())
    return line if len(line) <= PREVIEW_CHARS else line[: PREVIEW_CHARS - 1] + "…"


@dataclass(frozen=True, slots=True)
class Detail:
    """All about one row: facts as (key of the name, value), and what a correction changed."""

    facts: tuple[tuple[str, str], ...]
    changes: tuple[TextChange, ...] = ()


def detail(
    row: Item,
    evidence: Iterable[PromptEvidence],
    curation: Curation,
    base_digest: str,
    incumbent: str | None,
    language: str,
) -> Detail:
    """Why a row is here: statements, people, who wrote each side, what the operator decided."""
    about = _explanation(row, base_digest, incumbent)
    votes = [vote for each in evidence for vote in each.votes if vote.event_id in about["events"]]
    facts = {
        "reason": translated(reason_of(row), language),
        "policy": translated(about.get("policy", ""), language),
        **_side_facts(about, language),
        "events": ", ".join(map(str, about["events"])),
        "users": ", ".join(about["users"]),
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
    """`explain`, also of what is set aside."""
    if not isinstance(row, SetAside):
        return explain(row, base_digest, incumbent)
    return {
        "id": row.example_id,
        "events": list(row.event_ids),
        "users": list(row.user_ids),
        "conversation": row.conversation_id,
    }


def id_of(row: Item) -> str:
    """The id of the example that a row is or would have been."""
    return row.example_id if isinstance(row, SetAside) else row.id


def conversation_of(row: Item) -> str:
    """The conversation a row comes from."""
    return row.conversation_id if isinstance(row, SetAside) else row.origin.conversation_id


def answer_id_of(row: Item) -> str:
    """The answer that a row is about, of two the better one; "" where it names none."""
    named = row.answer_ids if isinstance(row, SetAside) else [s.answer_id for s in row.sides]
    return next(iter(named), "")


def _short(digest: str) -> str:
    """As much of a digest as tells it from others; the commands take its beginning."""
    return digest[:19]


def _side_facts(about: Mapping[str, Any], language: str) -> dict[str, str]:
    """Who wrote each side, and the thought that led to it."""
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
