"""`burnish feedback inbox` and `alerts`: what was voted down or looks suspicious.

Both keep which of it was looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.accounts import COMMAND_LINE
from app.cli.common import HomeOption, Json, open_workspace, print_result
from engine.units import local_minute

if TYPE_CHECKING:
    from feedback_store.curation.inbox import DownVote


def show_inbox(
    search: Annotated[
        str, typer.Option(help="Words in question, answer, comment, correction, reasons, people.")
    ] = "",
    with_looked: Annotated[
        bool, typer.Option("--all", help="Also those that were looked at.")
    ] = False,
    count: Annotated[int, typer.Option(min=1, help="Show so many, the newest first.")] = 20,
    look_at: Annotated[
        int | None, typer.Option(metavar="VOTE", help="Keep that a vote was looked at.")
    ] = None,
    put_back: Annotated[
        int | None, typer.Option(metavar="VOTE", help="Let a vote be one to look at again.")
    ] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """List answers that people disliked, with reasons, comments and corrections, newest first."""
    from app.html.searching import search_for
    from app.texts import DEFAULT

    with open_workspace(home) as workspace:
        if look_at is not None:
            workspace.inbox.look_at(look_at)
        if put_back is not None:
            workspace.inbox.put_back(put_back)
        wanted = search_for(search, DEFAULT, workspace.accounts)
        votes, total = workspace.inbox.page(wanted, looked_at=with_looked, count=count)
    lines = [f"{total} to show", *(_vote_text(vote) for vote in votes)]
    document = {"total": total, "votes": [asdict(vote) for vote in votes]}
    print_result(as_json, document, "\n\n".join(lines))


def show_alerts(
    look_at: Annotated[
        str | None, typer.Option(metavar="ALERT", help="Record that an alert was looked at.")
    ] = None,
    put_back: Annotated[
        str | None, typer.Option(metavar="ALERT", help="Let an alert be a new one again.")
    ] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """List votes that came too fast or agree too much to be honest, and people whose wishes are
    opposite, with the texts they judge. One that was looked at is new again once it changes."""
    with open_workspace(home) as workspace:
        if look_at is not None:
            workspace.look_at_alert(look_at, COMMAND_LINE)
        if put_back is not None:
            workspace.put_alert_back(put_back, COMMAND_LINE)
        found = workspace.alerts()
        names = {each.id: each.name for each in workspace.accounts.list()}
    text = "\n\n".join(_alert_lines(alert, names) for alert in found)
    print_result(as_json, {"alerts": found}, text or "nothing suspicious")


def _alert_lines(alert: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return an alert as lines of text."""
    lines = [
        f"{alert['id']}  {alert['explanation']}",
        f"  users: {', '.join(alert['users'])}",
        f"  {alert['text']}",
    ]
    if alert["looked_at"] is not None:
        when = local_minute(alert["looked_at"])
        lines.append(f"  looked at by {names.get(alert['looked_by'], alert['looked_by'])}, {when}")
    return "\n".join(lines)


def _vote_text(vote: DownVote) -> str:
    """Return a vote as lines of text; what was not said has no line."""
    texts = {
        "question": vote.question,
        "answer": vote.answer,
        "reasons": ", ".join(vote.reasons),
        "comment": vote.comment,
        "correction": vote.correction,
    }
    first = f"{vote.event_id}  {vote.user_id}{', looked at' if vote.looked_at else ''}"
    return "\n".join([first, *(f"  {name}: {text}" for name, text in texts.items() if text)])
