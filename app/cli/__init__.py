"""The command line: reads arguments, calls one function of the floors below, prints the result.

Every command takes `--home` and `--json` (one JSON document, the last line of standard output),
and exits 0 on success, 2 on a usage error, 1 on failure with one clear sentence on standard error.
Imports are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from app.cli.accounts import key_app, show_audit, user_app
from app.cli.backups import backup, restore_backup
from app.cli.canary import canary_app
from app.cli.commands import app
from app.cli.data import data_app
from app.cli.desk import show_desk
from app.cli.documents import documents_app
from app.cli.feedback import feedback_app
from app.cli.models import model_app
from app.cli.releases import loop_app, release_app
from app.cli.tools import tools_app
from engine.errors import BurnishError
from engine.private_files import make_new_files_private

app.add_typer(data_app, name="data")
app.add_typer(documents_app, name="documents")
app.add_typer(feedback_app, name="feedback")
app.add_typer(release_app, name="release")
app.add_typer(canary_app, name="canary")
app.add_typer(loop_app, name="loop")
app.add_typer(model_app, name="model")
app.add_typer(tools_app, name="tools")
app.add_typer(user_app, name="user")
app.add_typer(key_app, name="key")
app.command("desk")(show_desk)
app.command("audit")(show_audit)
app.command("backup")(backup)
app.command("restore")(restore_backup)


def main() -> None:
    """Run the command line; a Burnish or system error becomes one sentence and exit status 1."""
    make_new_files_private()
    try:
        app()
    except BurnishError as error:
        _fail(str(error))
    except OSError as error:
        what = f"cannot use {error.filename}" if error.filename else "the system refuses"
        _fail(f"{what}: {error.strerror or error}")


def _fail(sentence: str) -> NoReturn:
    print(f"burnish: {sentence}", file=sys.stderr)  # noqa: T201
    sys.exit(1)
