"""`burnish data`: training data drafted from documents, which a person approves or drops."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import HomeOption, Json, open_service, open_workspace, print_result

if TYPE_CHECKING:
    from app.service import Service
    from feedback_store.ai_feedback.drafts import WaitingDraft

data_app = typer.Typer(
    no_args_is_help=True, help="Questions and answers drafted from documents, to be approved."
)

DraftId = Annotated[str, typer.Argument(help="A draft's id, or the beginning of it.")]


@data_app.command("draft")
def draft(
    collection: Annotated[str, typer.Argument(help="A collection that is shared with everybody.")],
    count: Annotated[int, typer.Option(min=1, help="Passages to draft from at most.")] = 50,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Let the live release draft a question and an answer from each passage that has none yet.

    Nothing is trained on until it is approved.
    """
    with open_service(home) as service:
        passages, kept = _draft(service, collection, count)
        waiting = service.workspace.drafts.count_waiting()
    print_result(
        as_json,
        {"passages": passages, "drafts": kept, "waiting": waiting},
        f"{kept} drafts from {passages} passages; {waiting} wait: `burnish data list`",
    )


@data_app.command("list")
def list_drafts(home: HomeOption = None, as_json: Json = False) -> None:
    """List the drafts that nobody has decided about, the oldest first."""
    with open_workspace(home) as workspace:
        waiting = workspace.drafts.waiting()
    text = "\n\n".join(map(_lines, waiting)) or "no draft waits"
    print_result(as_json, {"drafts": [asdict(each) for each in waiting]}, text)


@data_app.command("approve")
def approve_draft(
    draft_id: DraftId,
    question: Annotated[str | None, typer.Option(help="The question in other words.")] = None,
    answer: Annotated[str | None, typer.Option(help="The answer in other words.")] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Let training learn a draft's answer, as it is or in other words, with its passage shown."""
    from app.learning.drafting import learn_draft

    with open_workspace(home) as workspace:
        found = workspace.drafts.find(draft_id)
        changed = replace(found, question=question or found.question, answer=answer or found.answer)
        shown = learn_draft(workspace.drafts, changed, workspace.settings.system_prompt)
    print_result(
        as_json,
        {"approved": found.id, "question": shown.question, "answer": shown.answer},
        f"approved: {found.id[:8]}\n  {shown.question}\n  {shown.answer}",
    )


@data_app.command("drop")
def drop_draft(draft_id: DraftId, home: HomeOption = None, as_json: Json = False) -> None:
    """Learn nothing from a draft, and do not draft from its passage again."""
    with open_workspace(home) as workspace:
        dropped = workspace.drafts.drop(draft_id)
    print_result(as_json, {"dropped": dropped.id}, f"dropped: {dropped.id[:8]}")


@data_app.command("undo")
def undo_draft(draft_id: DraftId, home: HomeOption = None, as_json: Json = False) -> None:
    """Let a draft wait again that was approved or dropped; nothing is learnt of it until then."""
    with open_workspace(home) as workspace:
        found = workspace.drafts.undo(draft_id)
    print_result(as_json, {"waiting": found.id}, f"waits again: {found.id[:8]}")


def _draft(service: Service, collection: str, count: int) -> tuple[int, int]:
    """Draft, and keep each draft as it comes; returns the numbers of passages and of drafts."""
    from app.learning.drafting import Drafter
    from engine.errors import InvalidInput
    from feedback_store.documents.library import Collection

    workspace = service.workspace
    documents = workspace.documents.in_collection(Collection(collection))
    if not documents:
        raise InvalidInput(f"there is no shared collection {collection[:80]!r}")
    drafted, questions = workspace.drafts.drafted(collection)
    every = (passage for document in documents for passage in document)
    fresh = list(islice((p for p in every if p.page_content not in drafted), count))
    kept = 0
    with service.slots.pin_live() as adapter:
        model = adapter or service.engine.base_digest
        drafter = Drafter(service.engine, adapter, model, service.chat.sampling())
        for each in drafter.draft(collection, fresh, questions):
            workspace.drafts.add([each])
            kept += 1
    return len(fresh), kept


def _lines(draft: WaitingDraft) -> str:
    source: Any = draft.passage
    place = f", page {source['page']}" if "page" in source else ""
    place = f", {source['heading']}" if "heading" in source else place
    head = f"{draft.id[:8]}  {draft.collection} / {source['source']}{place}"
    return f"{head}\n  Q: {draft.question}\n  A: {draft.answer}"
