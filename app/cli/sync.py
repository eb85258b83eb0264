"""`burnish feedback sync`: feedback from other chat pages, by their HTTP API."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.common import HomeOption, Json, open_workspace, print_result

sync_app = typer.Typer(no_args_is_help=True, help="Feedback from other chat pages.")


@sync_app.command("open-webui")
def open_webui(
    home: HomeOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Read all of it again, not only what changed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take over the ratings and edits of an Open WebUI. Repeating it adds nothing twice.

    The settings open_webui_url and open_webui_api_key name it. The loop does the same before each
    round.
    """
    from dataclasses import asdict

    from app.learning.open_webui import sync_open_webui

    with open_workspace(home) as workspace:
        report = asdict(sync_open_webui(workspace, everything=everything))
    new = ("votes", "corrections", "comparisons", "taken_back")
    lines = [
        f"changed: {report['ratings']} ratings, {report['edits']} edits,"
        f" {report['on_policy']} of answers by this server",
        "new: " + ", ".join(f"{report[what]} {what.replace('_', ' ')}" for what in new),
        *(f"set aside: {n} ({why})" for why, n in report["set_aside"].items()),
    ]
    print_result(as_json, report, "\n".join(lines))
