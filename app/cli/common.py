"""Shared by all commands: options, contexts that open a home, and the printing of results."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from app.service import Service
    from app.workspace import Workspace

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Where all state lives. [default: the platform's data folder]"),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A hub id, a folder, a GGUF file, a short name, 'embedded', or a model's bundle.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document as the last line.")]


@contextmanager
def open_workspace(home: Path | None, **overrides: Any) -> Iterator[Workspace]:
    """Open a home folder for one command."""
    from app.settings import load_settings

    settings = load_settings(home=home, **overrides)  # before libraries read the environment
    from app.workspace import Workspace

    workspace = Workspace(settings)
    try:
        yield workspace
    finally:
        workspace.close()


@contextmanager
def open_service(
    home: Path | None, *, as_json: bool = False, **overrides: Any
) -> Iterator[Service]:
    """Open a home folder and load its model for one command; `as_json` shows no progress."""
    from app.service import Service

    with open_workspace(home, **overrides) as workspace:
        with show_progress("Loading the model", as_json=as_json):
            service = Service(workspace)
        try:
            yield service
        finally:
            service.engine.close()


@contextmanager
def show_progress(first: str, *, as_json: bool = False) -> Iterator[Callable[[str], None]]:
    """Show on standard error what is being done, if that is a terminal and the result is not JSON:
    programs see nothing.

    Yields the function that replaces the text; without a text the line disappears.
    """
    if as_json or not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(first)) as status:
        yield lambda text: status.update(escape(text)) if text else status.stop()


def print_note(as_json: bool, text: str) -> None:
    """Print a line for a person: on standard error if standard output is for a program."""
    print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


def print_result(as_json: bool, document: Any, text: str) -> None:
    """Print the result of a command: a document for programs or a text for people."""
    if as_json:
        print(json.dumps(document, ensure_ascii=False), flush=True)  # noqa: T201
    elif text:
        print(text, flush=True)  # noqa: T201
