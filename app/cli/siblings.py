"""`burnish feedback siblings`: the comparisons that wait for people, and alternatives made now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import HomeOption, Json, open_service, open_workspace, print_result

if TYPE_CHECKING:
    from app.workspace import Workspace

SHOWN_CHARS = 72


def siblings(
    home: HomeOption = None,
    write: Annotated[
        int, typer.Option(min=0, help="Write alternatives for so many bad answers now.")
    ] = 0,
    show: Annotated[int, typer.Option(min=0, help="List so many of those that wait.")] = 10,
    as_json: Json = False,
) -> None:
    """Show which comparisons wait for people, the next one first; can write more."""
    if write:
        with open_service(home) as service:
            written = service.alternative_writer.write(write)
            document = _document(service.workspace, show)
    else:
        with open_workspace(home) as workspace:
            written, document = 0, _document(workspace, show)
    document["written_for"] = written
    print_result(as_json, document, "\n".join(_lines(document, told=bool(write))))


def _document(workspace: Workspace, show: int) -> dict[str, Any]:
    queue, live = workspace.comparison_queue, workspace.registry.live().bundle
    wanted = len(workspace.alternatives.wanted(1_000))
    return {
        **queue.counts(),
        "alternatives": workspace.alternatives.count(),
        "bad_answers_without": wanted,
        "next": [
            {
                "id": each.id,
                "question": each.messages[-1].content,
                "first": each.first.text,
                "second": each.second.text,
                "preference": each.preference,
                "entropy": each.entropy,
            }
            for each in queue.waiting(show, live=live)
        ],
    }


def _lines(document: dict[str, Any], *, told: bool) -> list[str]:
    lines = [f"written for {document['written_for']} bad answers"] if told else []
    lines += [
        f"{document['waiting']} comparisons wait, {document['judged']} judged,"
        f" {document['skipped']} skipped; {document['bad_answers_without']} bad answers have no"
        " alternatives yet"
    ]
    for each in document["next"]:
        question = " ".join(each["question"].split())
        cut = question if len(question) <= SHOWN_CHARS else f"{question[:SHOWN_CHARS]}…"
        lines.append(f"{each['id']:6}  {each['preference']:.2f}  {each['entropy']:.2f}  {cut}")
    return lines
