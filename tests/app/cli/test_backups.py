"""`burnish backup` and `burnish restore` as an operator calls them."""

from __future__ import annotations

from pathlib import Path

from app.cli.backups import _secret_settings
from tests.app.command_line import Cli, pairs_file


def test_a_home_comes_back_from_its_archive(cli: Cli, tmp_path: Path) -> None:
    cli("feedback", "import", str(pairs_file(tmp_path / "pairs.jsonl", 5)))
    stats = cli.json("feedback", "stats")
    (tmp_path / "archives").mkdir()
    made = cli.json("backup", str(tmp_path / "archives"))
    (archive,) = (tmp_path / "archives").iterdir()
    assert made["path"] == str(archive)
    assert (made["database"], made["with_keys"]) == ("sqlite", False)
    assert archive.stat().st_mode & 0o077 == 0
    cli.home = tmp_path / "restored"
    back = cli.json("restore", str(archive))
    assert (back["files"], back["bytes"]) == (made["files"], made["bytes"])
    assert cli.json("feedback", "stats") == stats


def test_a_home_in_use_is_never_restored_into(cli: Cli, tmp_path: Path) -> None:
    cli("backup", str(tmp_path / "one.tar"))
    _, errors = cli("restore", str(tmp_path / "one.tar"), status=1)
    assert "is not empty" in errors
    cli.home = tmp_path / "another"
    _, errors = cli("restore", str(tmp_path / "two.tar"), status=1)
    assert "two.tar" in errors
    assert not cli.home.exists()


def test_settings_that_may_hold_a_secret_are_known_by_their_types() -> None:
    secret = {"database_url", "judge_api_key", "loop_webhook_url", "oidc_client_secret"}
    assert secret <= _secret_settings()
    assert not _secret_settings() & {"home", "model", "loop_schedule", "allowed_hosts"}
