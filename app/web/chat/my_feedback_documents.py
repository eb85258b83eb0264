"""JSON documents of the page "My feedback": statements with their outcome, and examples.

Knows the store's views and how texts are rendered; knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.html.changes import changes_html
from app.html.rendering import answer_html
from app.texts import translated
from app.web.chat.documents import short_release
from deploy.releases.learning import LearntBy, Lineage
from engine.excerpts import one_line
from feedback_store.examples.explanation import changes
from feedback_store.examples.rules import NO_CONSENT
from feedback_store.personal.example_pool import FeedbackExample
from feedback_store.records import StoredAnswer
from feedback_store.view.outcomes import StatementOutcome, UserStatement

EXCERPT_CHARS = 280
Lineages = Mapping[int, Lineage]


def summary_of(outcomes: Sequence[StatementOutcome], lineages: Lineages) -> dict[str, int]:
    """Count a person's statements by outcome."""
    became = [_outcome_name(each) for each in outcomes]
    counts = {name: became.count(name) for name in ("teaches", "measures", "waits", "unused")}
    learnt = (lineages[each.statement.event_id].releases for each in outcomes)
    return {
        "said": len(outcomes),
        **counts,
        "learnt": sum(any(release.is_live for release in releases) for releases in learnt),
    }


def outcome_document(outcome: StatementOutcome, lineage: Lineage, language: str) -> dict[str, Any]:
    """Return a statement with its outcome."""
    said = outcome.statement
    return {
        "event": said.event_id,
        "kind": said.kind,
        "at": said.at,
        "conversation": said.conversation_id if said.listed else "",
        "question": one_line(said.question, EXCERPT_CHARS),
        "answers": said.answer_ids,
        "vote": said.vote,
        "reasons": said.reasons,
        "comment": said.comment,
        "correction": one_line(said.correction, EXCERPT_CHARS),
        "choice": said.choice,
        "became": _outcome_name(outcome),
        "made": [_example_kind(each.kind, each.is_bad) for each in outcome.made],
        "why_not": [translated(reason, language) for reason in outcome.reasons],
        "snapshot": short_release(lineage.snapshot),
        "release": _release(lineage.releases),
    }


def texts_document(said: UserStatement, answers: Sequence[StoredAnswer]) -> dict[str, Any]:
    """Return the whole texts of a statement, as HTML."""
    return {
        "answers": [
            {
                "id": answer.id,
                "html": answer_html(answer.text) if answer.text else "",
                "release": short_release(answer.adapter_digest),
            }
            for answer in answers
        ],
        "correction_html": answer_html(said.correction) if said.correction else "",
        "changes_html": (
            changes_html(changes(answers[0].text, said.correction)) if said.correction else ""
        ),
    }


def example_documents(examples: Iterable[FeedbackExample]) -> list[dict[str, Any]]:
    """Return the answers that are shown as examples for similar questions."""
    return [
        {
            "answer": each.id,
            "source": "shared" if each.is_shared else each.source,
            "question": one_line(each.question, EXCERPT_CHARS),
            "text": one_line(each.answer, EXCERPT_CHARS),
        }
        for each in examples
    ]


def _outcome_name(outcome: StatementOutcome) -> str:
    """Return the outcome of a statement as one word."""
    if outcome.made:
        return "teaches" if outcome.split == "train" else "measures"
    if outcome.statement.kind == "flag":
        return "reported"
    return "waits" if NO_CONSENT in outcome.reasons else "unused"


def _example_kind(kind: str, is_bad: bool) -> str:
    return f"{kind}_bad" if is_bad else kind


def _release(releases: Sequence[LearntBy]) -> dict[str, Any] | None:
    """Return the release to name: the live one, else the last live one, else the newest."""
    if not releases:
        return None
    chosen = max(releases, key=lambda each: (each.is_live, each.live_at or 0.0))
    if not chosen.is_live and chosen.live_at is None:
        chosen = releases[-1]
    state = "live" if chosen.is_live else "not_live" if chosen.live_at is None else "was_live"
    return {"name": short_release(chosen.bundle), "state": state}
