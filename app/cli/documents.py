"""`burnish documents`: the collections that everybody may ask, or one person's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import HomeOption, Json, open_workspace, print_note, print_result
from engine.storage import short_id

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from feedback_store.documents.library import StoredDocument

documents_app = typer.Typer(
    no_args_is_help=True, help="Documents from which questions are answered, in collections."
)

CollectionName = Annotated[
    str, typer.Option("--collection", "-c", help="The collection, made by its first document.")
]
User = Annotated[
    str | None,
    typer.Option("--user", help="A person whose own it is. [default: shared with everybody]"),
]


@documents_app.command("add")
def add(
    files: Annotated[list[Path], typer.Argument(help="PDF, DOCX, Markdown, HTML, text or CSV.")],
    collection: CollectionName,
    user: User = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Read files into a collection; one of the same name there is replaced.

    A file that cannot be read is named, and the others are added; the exit status is 1 then.
    """
    from engine.errors import InvalidInput
    from feedback_store.documents.library import Collection

    added: list[StoredDocument] = []
    refused: list[str] = []
    with open_workspace(home) as workspace:
        for file in files:
            try:
                added.append(workspace.documents.add(Collection(collection, user), file, file.name))
                print_note(as_json, f"added: {_line(added[-1])}")
            except (InvalidInput, OSError) as error:
                reason = error if isinstance(error, InvalidInput) else f"{file}: {error.strerror}"
                refused.append(str(reason))
    print_result(as_json, {"added": [each.as_dict() for each in added], "refused": refused}, "")
    if refused:
        raise InvalidInput("; ".join(refused))


@documents_app.command("list")
def list_documents(user: User = None, home: HomeOption = None, as_json: Json = False) -> None:
    """List the documents of all shared collections, or of a person's own."""
    with open_workspace(home) as workspace:
        found = workspace.documents.documents(user)
    text = "\n".join(map(_line, found)) or "there are no documents"
    print_result(as_json, {"documents": [each.as_dict() for each in found]}, text)


@documents_app.command("remove")
def remove(
    document: Annotated[str, typer.Argument(help="A document's id, or the beginning of it.")],
    user: User = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Remove a document and its index."""
    with open_workspace(home) as workspace:
        found = workspace.documents.find(user, document)
        workspace.documents.remove(user, found.id)
    print_result(as_json, {"removed": found.id}, f"removed: {_line(found)}")


@documents_app.command("search")
def search(
    question: Annotated[str, typer.Argument(help="What is asked.")],
    collection: CollectionName,
    count: Annotated[int, typer.Option(min=1, max=100, help="Passages to show at most.")] = 5,
    user: User = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Find the passages from which a question would be answered, the best first."""
    from feedback_store.documents.library import Collection
    from feedback_store.documents.retrieval import find_passages, passage_row

    with open_workspace(home) as workspace:
        found = find_passages(workspace.documents, Collection(collection, user), question, count)
    rows = [passage_row(each) for each in found]
    text = "\n\n".join(map(_excerpt, found)) or "nothing in the documents fits"
    print_result(as_json, {"passages": rows}, text)


def _line(document: StoredDocument) -> str:
    size = f"{document.passages} passages"
    return f"{short_id(document.id)}  {document.collection.name} / {document.name}  ({size})"


def _excerpt(passage: Document) -> str:
    made = passage.metadata
    place = f", page {made['page']}" if "page" in made else ""
    place = f", {made['heading']}" if "heading" in made else place
    return f"{made['source']}{place}\n  " + passage.page_content.replace("\n", "\n  ")
