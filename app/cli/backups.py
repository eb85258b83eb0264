"""`burnish backup` and `burnish restore`: one archive of a home, taken while people chat."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.common import HomeOption, Json, open_workspace, print_result, show_progress
from engine.units import mib


def backup(
    target: Annotated[Path, typer.Argument(help="A folder, or the name of the new archive.")],
    with_keys: Annotated[
        bool,
        typer.Option(
            "--with-keys", help="Take the key of session cookies and the settings' secrets."
        ),
    ] = False,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Write the home into one archive, while people chat.

    It holds what people wrote: keep it like the home. `burnish restore` makes a home of it.
    """
    from deploy.backups.making import back_up

    name = time.strftime("burnish-%Y%m%dT%H%M%SZ.tar", time.gmtime())
    archive = target / name if target.is_dir() else target
    with open_workspace(home) as workspace, show_progress("Copying the home"):
        manifest = back_up(
            workspace.home,
            workspace.database,
            archive,
            secret_settings=_secret_settings(),
            with_keys=with_keys,
        )
    print_result(as_json, _document(archive, manifest), f"{archive}: {_summary(manifest)}")


def restore_backup(
    archive: Annotated[Path, typer.Argument(help="What `burnish backup` wrote.")],
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Make a new home of a backup, verified by its digests; a home that is not empty is refused.

    A backup of PostgreSQL is restored into the empty database that BURNISH_DATABASE_URL names.
    """
    from app.settings import load_settings
    from deploy.backups.restoring import restore
    from engine.home import Home

    settings = load_settings(home=home)
    with show_progress("Restoring the home"):
        manifest = restore(archive, Home(settings.home), settings.database_url)
    with open_workspace(home):  # raises where an older Burnish cannot open it
        pass
    text = f"{settings.home}: {_summary(manifest)}"
    print_result(as_json, _document(settings.home, manifest), text)


def _secret_settings() -> set[str]:
    """The names of settings that are secrets, and of addresses that may hold one."""
    from pydantic import SecretStr

    from app.settings import Settings

    fields = Settings.model_fields.items()
    secret = {name for name, field in fields if SecretStr.__name__ in str(field.annotation)}
    return {*secret, "database_url", "loop_webhook_url"}


def _document(path: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    facts = {name: manifest[name] for name in ("created_at", "database", "with_keys")}
    sizes = [file["bytes"] for file in manifest["files"].values()]
    return {"path": str(path), **facts, "files": len(sizes), "bytes": sum(sizes)}


def _summary(manifest: dict[str, Any]) -> str:
    sizes = [file["bytes"] for file in manifest["files"].values()]
    return f"{len(sizes)} files, {mib(sum(sizes))}, {manifest['database']}"
