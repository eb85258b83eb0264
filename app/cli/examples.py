"""`burnish feedback examples`: corrected and liked answers shared with everybody as examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import HomeOption, Json, open_workspace, print_result

if TYPE_CHECKING:
    from feedback_store.personal.example_pool import FeedbackExample
    from feedback_store.personal.shared_examples import Approval

examples_app = typer.Typer(
    no_args_is_help=True, help="Answers shown to everybody as examples for similar questions."
)

AnswerId = Annotated[str, typer.Argument(help="An answer's id, as `feedback pairs` prints it.")]


@examples_app.command("list")
def list_(home: HomeOption = None, as_json: Json = False) -> None:
    """List the approved answers, the newest approval first, and whether each is shown now."""
    with open_workspace(home) as workspace:
        approvals = workspace.shared_examples.approvals()
    document = {"examples": [_approval(each) for each in approvals]}
    print_result(
        as_json, document, "\n\n".join(map(_lines, document["examples"])) or "none is approved"
    )


@examples_app.command("approve")
def approve(answer: AnswerId, home: HomeOption = None, as_json: Json = False) -> None:
    """Show a corrected or liked answer to everybody, in the words that it has now."""
    with open_workspace(home) as workspace:
        document = {"approved": answer, **_words(workspace.shared_examples.approve(answer))}
    print_result(
        as_json, document, f"approved: {answer}\n  {document['question']}\n  {document['text']}"
    )


@examples_app.command("withdraw")
def withdraw(answer: AnswerId, home: HomeOption = None, as_json: Json = False) -> None:
    """Show an approved answer to nobody but its author."""
    with open_workspace(home) as workspace:
        workspace.shared_examples.withdraw(answer)
    print_result(as_json, {"withdrawn": answer}, f"withdrawn: {answer}")


def _approval(approval: Approval) -> dict[str, Any]:
    return {
        "answer": approval.answer_id,
        "user": approval.user_id,
        "approved_at": approval.approved_at,
        "shown": approval.example is not None,
        "why_not": approval.refusal,
        **({} if approval.example is None else _words(approval.example)),
    }


def _words(example: FeedbackExample) -> dict[str, str]:
    return {"source": example.source, "question": example.question, "text": example.answer}


def _lines(row: dict[str, Any]) -> str:
    """Return one approval as text for a terminal."""
    head = f"{row['answer']} of {row['user']}"
    if not row["shown"]:
        return f"{head}: not shown, {row['why_not']}"
    return f"{head}: {row['source']}\n  {row['question']}\n  {row['text']}"
