"""`burnish user`, `burnish key` and `burnish audit`: who may use the server, and what was done.

Whoever may use the home's files may do all of it, beside a running server.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import HomeOption, Json, open_workspace, print_result
from engine.units import local_minute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.workspace import Workspace
    from feedback_store.accounts.accounts import Account

user_app = typer.Typer(no_args_is_help=True, help="Accounts.")
key_app = typer.Typer(no_args_is_help=True, help="API keys.")
AccountName = Annotated[str, typer.Argument(help="The account's name.")]
RoleName = Annotated[str, typer.Option(help="user, reviewer or operator.")]
COMMAND_LINE = "command line"  # the actor in the audit log, whoever may use the home's files


@user_app.command("list")
def user_list(home: HomeOption = None, as_json: Json = False) -> None:
    """List all accounts."""
    from dataclasses import asdict

    with open_workspace(home) as workspace:
        found = workspace.accounts.list()
    lines = [
        f"{a.name:<20} {a.role:<9} {'disabled' if a.disabled_at else 'enabled':<9} {a.id}"
        for a in found
    ]
    print_result(as_json, {"users": [asdict(a) for a in found]}, _or_none(lines))


@user_app.command("invite")
def user_invite(home: HomeOption = None, role: RoleName = "user", as_json: Json = False) -> None:
    """Print a link by which one person joins, within a week."""
    from app.account_links import link_address

    with open_workspace(home) as workspace:
        secret = workspace.accounts.invite(role)
        workspace.accounts.audit.record(COMMAND_LINE, "invite", role)
        link = link_address(workspace.settings.public_url, secret)
    print_result(as_json, {"role": role, "link": link}, link)


@user_app.command("role")
def user_role(
    name: AccountName,
    role: Annotated[str, typer.Argument(help="user, reviewer or operator.")],
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Give an account another role, which holds at once."""
    with _open_account(home, name) as (workspace, account):
        workspace.accounts.set_role(account.id, role)
        workspace.accounts.audit.record(COMMAND_LINE, f"change role to {role}", account.id)
    print_result(as_json, {"user": account.name, "role": role}, f"{account.name}: {role}")


@user_app.command("reset")
def user_reset(name: AccountName, home: HomeOption = None, as_json: Json = False) -> None:
    """Print a link by which a person sets a new password, within a day."""
    from app.account_links import link_address

    with _open_account(home, name) as (workspace, account):
        secret = workspace.accounts.offer_reset(account.id)
        workspace.accounts.audit.record(COMMAND_LINE, "offer reset", account.id)
        link = link_address(workspace.settings.public_url, secret)
    print_result(as_json, {"user": account.name, "link": link}, link)


@user_app.command("disable")
def user_disable(
    name: AccountName,
    home: HomeOption = None,
    enable: Annotated[bool, typer.Option("--enable", help="Let the account in again.")] = False,
    as_json: Json = False,
) -> None:
    """Lock an account out, with its sessions and keys; what it asked and said stays."""
    act = "enable" if enable else "disable"
    with _open_account(home, name) as (workspace, account):
        workspace.accounts.set_disabled(account.id, not enable)
        workspace.accounts.audit.record(COMMAND_LINE, act, account.id)
    print_result(as_json, {"user": account.name, "disabled": not enable}, f"{act}d: {name}")


@user_app.command("sessions")
def user_sessions(
    name: AccountName,
    home: HomeOption = None,
    end: Annotated[bool, typer.Option("--end", help="Sign the account out everywhere.")] = False,
    as_json: Json = False,
) -> None:
    """List where an account is signed in, or sign it out everywhere."""
    from dataclasses import asdict

    with _open_account(home, name) as (workspace, account):
        found = workspace.accounts.sessions.of(account.id)
        if end:
            workspace.accounts.sessions.end_all(account.id)
            workspace.accounts.audit.record(COMMAND_LINE, "end sessions", account.id)
    lines = [f"{s.id[:12]}  since {local_minute(s.created_at)}  used {s.used_on}" for s in found]
    document = {"user": account.name, "sessions": [asdict(s) for s in found], "ended": end}
    print_result(as_json, document, f"ended: {len(found)}" if end else _or_none(lines))


@key_app.command("create")
def key_create(
    name: AccountName,
    home: HomeOption = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="chat, feedback or operate; may be repeated.")
    ] = None,
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    as_json: Json = False,
) -> None:
    """Print a new API key of an account, once. Without --scope it may chat and give feedback."""
    with _open_account(home, name) as (workspace, account):
        scopes = scope or ("chat", "feedback")
        key, secret = workspace.accounts.keys.create(account.id, scopes, label)
        workspace.accounts.audit.record(COMMAND_LINE, "create key", key.id)
    document = {"user": account.name, "id": key.id, "scopes": key.scopes, "key": secret}
    print_result(as_json, document, secret)


@key_app.command("list")
def key_list(
    name: Annotated[str | None, typer.Argument(help="The account's name; else all.")] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """List API keys with the day of their last use; nobody can read a key again."""
    with open_workspace(home) as workspace:
        names = {account.id: account.name for account in workspace.accounts.list()}
        found = workspace.accounts.keys.of(workspace.accounts.find(name).id if name else None)
    rows = [
        {
            "id": key.id,
            "user": names[key.account_id],
            "label": key.label,
            "scopes": key.scopes,
            "last_used": key.used_on,
            "revoked": key.revoked_at is not None,
        }
        for key in found
    ]
    lines = [
        f"{key.id[:12]}  {names[key.account_id]:<20} {','.join(key.scopes):<22}"
        f" {'revoked' if key.revoked_at else key.used_on or 'never used':<10}  {key.label}"
        for key in found
    ]
    print_result(as_json, {"keys": rows}, _or_none(lines))


@key_app.command("revoke")
def key_revoke(
    key: Annotated[str, typer.Argument(help="The key's id, or its beginning.")],
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Revoke an API key; it works no longer, at once."""
    with open_workspace(home) as workspace:
        revoked = workspace.accounts.keys.revoke(key)
        workspace.accounts.audit.record(COMMAND_LINE, "revoke key", revoked.id)
    print_result(as_json, {"id": revoked.id, "revoked": True}, f"revoked: {revoked.id}")


def show_audit(
    home: HomeOption = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 100,
    as_json: Json = False,
) -> None:
    """Show what operators did, who and when, the newest first."""
    from dataclasses import asdict

    with open_workspace(home) as workspace:
        found = workspace.accounts.audit.entries(limit)
    lines = [f"{local_minute(e.at)}  {e.actor:<20} {e.action:<20} {e.subject}" for e in found]
    print_result(as_json, {"audit": [asdict(e) for e in found]}, _or_none(lines))


@contextmanager
def _open_account(home: Path | None, name: str) -> Iterator[tuple[Workspace, Account]]:
    """Open a home and find an account in it; raises `UnknownId`."""
    with open_workspace(home) as workspace:
        yield workspace, workspace.accounts.find(name)


def _or_none(lines: Sequence[str]) -> str:
    return "\n".join(lines) or "none"
