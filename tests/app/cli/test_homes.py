"""Homes that cannot be used, that others can read, or whose names mean something elsewhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import gradio.utils
import pytest

from app.claims import open_home
from app.settings import Settings
from app.workspace import Workspace
from engine.errors import InvalidInput
from engine.home import Home
from engine.messages import Message
from engine.prompts.modes import PromptTemplate
from feedback_store.records import ImportedAnswer, ImportedChoice, ImportedTurn
from tests.app.command_line import Cli, pairs_file

COMMANDS = [
    ("serve", "--port", "0"),
    ("ask", "Hi"),
    ("doctor",),
    ("demo",),
    ("tune",),
    ("evaluate", "abcd"),
    ("feedback", "stats"),
    ("feedback", "pairs"),
    ("feedback", "snapshot"),
    ("feedback", "alerts"),
    ("release", "list"),
    ("release", "rollback"),
    ("loop", "status"),
]


def assert_one_sentence(cli: Cli, said: str, *arguments: str) -> None:
    output, errors = cli(*arguments, status=1)
    assert output == ""
    assert errors.startswith("burnish: ")
    assert said in errors
    assert len(errors.splitlines()) == 1, errors


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_home_that_is_no_folder_is_refused(cli: Cli, arguments: tuple[str, ...]) -> None:
    cli.home.write_text("a file")
    assert_one_sentence(cli, "is not a folder", *arguments)
    cli.home = Path("/dev/null")
    assert_one_sentence(cli, "is not a folder", *arguments)
    cli.home = Path("/dev/null/home")
    assert_one_sentence(cli, "is not a folder", *arguments)


@pytest.mark.parametrize("arguments", [*COMMANDS[1:3], *COMMANDS[4:]])
def test_a_damaged_database_is_said(cli: Cli, arguments: tuple[str, ...]) -> None:
    cli.home.mkdir(mode=0o700)
    (cli.home / "burnish.db").write_bytes(b"no database" * 1000)
    assert_one_sentence(cli, "file is not a database", *arguments)


def test_a_damaged_job_is_said(cli: Cli) -> None:
    cli("feedback", "stats")
    job = cli.home / "jobs" / ("0" * 64)
    job.mkdir(parents=True)
    (job / "manifest.json").write_text('{"snapshot": ')
    assert_one_sentence(cli, f"{job / 'manifest.json'} is damaged", "tune", "--list")


def test_a_database_of_a_newer_version_is_said(cli: Cli) -> None:
    cli("feedback", "stats")
    workspace = Workspace(Settings(home=cli.home))
    with workspace.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version_feedback SET version_num = '9999'")
    workspace.close()
    assert_one_sentence(cli, "newer Burnish", "feedback", "stats")


@pytest.mark.parametrize(
    "refusal",
    [
        OSError(30, "Read-only file system", "/home/burnish.db"),
        PermissionError(13, "Permission denied", "/home/examples.yaml"),
        OSError(28, "No space left on device"),
    ],
)
def test_a_home_that_cannot_be_written_is_said(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, refusal: OSError
) -> None:
    def refuse(*_: object) -> None:
        raise refusal

    monkeypatch.setattr("app.default_files.write_atomically", refuse)
    assert refusal.strerror is not None
    assert_one_sentence(cli, refusal.strerror, "feedback", "stats")


def test_a_folder_that_is_everybodys_is_no_home(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(InvalidInput, match="shared by everybody"):
        open_home(Home(shared))
    assert mode(shared) == 0o1777


def test_a_folder_that_others_use_is_no_home_and_keeps_its_rights(tmp_path: Path) -> None:
    used = tmp_path / "srv"
    used.mkdir()
    (used / "somebody's.txt").write_text("words")
    used.chmod(0o755)
    with pytest.raises(InvalidInput, match="holds other files"):
        open_home(Home(used))
    assert mode(used) == 0o755
    used.chmod(0o700)
    open_home(Home(used))
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    (prepared / "settings.toml").write_text("")
    prepared.chmod(0o755)
    open_home(Home(prepared))
    assert mode(prepared) == 0o700


@pytest.mark.integration
@pytest.mark.parametrize("name", ["a?b", "a%41", "%s", "[x]", "a'b\"", "a;b", "~x", "ü {x}#"])
def test_a_home_may_have_any_name(cli: Cli, settings: Settings, tmp_path: Path, name: str) -> None:
    cli.home = tmp_path / name
    assert cli.json("feedback", "stats")["turns"] == 0
    workspace = Workspace(settings.model_copy(update={"home": cli.home}))
    fill(workspace)
    workspace.close()
    assert cli.json("feedback", "stats")["turns"] == 3
    cli("feedback", "snapshot")
    assert {path.name for path in tmp_path.iterdir()} <= {name, "models", settings.home.name}


def fill(workspace: Workspace) -> None:
    """Three questions whose answers were compared."""
    turns = [
        ImportedTurn(
            (Message("user", f"Question {number}?"),),
            (ImportedAnswer("The sea."), ImportedAnswer("A stone.")),
            (ImportedChoice("ann", 0, 1, "left"),),
        )
        for number in range(3)
    ]
    workspace.store.add_imported(turns, PromptTemplate("plain", "", "", ()), "ann")


@pytest.fixture
def generous(cli: Cli) -> Iterator[None]:
    """A process that gives others every right to what it creates."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def readable_by_others(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.rglob("*")) if mode(path) & 0o077]


@pytest.mark.usefixtures("generous")
def test_only_its_owner_may_read_what_commands_leave(cli: Cli, tmp_path: Path) -> None:
    cli("feedback", "import", str(pairs_file(tmp_path / "pairs.jsonl", 3)))
    cli("feedback", "snapshot")
    cli("feedback", "export", str(tmp_path / "export"), "--format", "trl")
    assert readable_by_others(cli.home) == []
    assert readable_by_others(tmp_path / "export") == []
    cli("feedback", "stats")  # no umask is needed for the home itself
    assert mode(cli.home) == 0o700


@pytest.mark.usefixtures("generous")
def test_nobody_else_reaches_a_home_whatever_opens_it(settings: Settings) -> None:
    workspace = Workspace(settings)
    assert mode(settings.home) == 0o700
    workspace.close()


def test_what_people_upload_is_kept_in_the_home(settings: Settings) -> None:
    assert gradio.utils.get_upload_folder() == str(settings.home / "uploads")


def test_an_older_home_becomes_private_and_that_is_said(
    cli: Cli, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cli("feedback", "stats")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o755)
    (cli.home / "link").symlink_to(elsewhere)
    for path in (cli.home, cli.home / "jobs"):
        path.chmod(0o755)
    (cli.home / "burnish.db").chmod(0o644)
    cli("feedback", "stats")
    assert caplog.messages == [
        f"other accounts could read {cli.home}; from now on only this one can"
    ]
    assert [path for path in readable_by_others(cli.home) if not path.is_symlink()] == []
    assert mode(elsewhere) == 0o755
    cli("feedback", "stats")
    assert len(caplog.messages) == 1


def test_what_is_not_ours_in_a_folder_keeps_its_rights(tmp_path: Path) -> None:
    (tmp_path / "page.html").touch(0o644)
    open_home(Home(tmp_path))
    assert (mode(tmp_path), mode(tmp_path / "page.html")) == (0o700, 0o644)
