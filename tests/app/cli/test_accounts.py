"""`burnish user`, `key` and `audit` as scripts use them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.settings import load_settings
from engine.home import Home
from feedback_store.accounts.accounts import Accounts
from feedback_store.storage.database import Database, database_url
from tests.app.command_line import Cli

PASSWORD = "correct horse battery"


@pytest.fixture
def quick(quick_passwords: None) -> None: ...


def token_of(link: str) -> str:
    return link.partition("token=")[2]


def test_a_person_is_invited_promoted_and_locked_out(
    cli: Cli, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURNISH_ALLOWED_HOSTS", "chat.example.org")
    monkeypatch.setenv("BURNISH_SECURE_COOKIE", "true")
    invited = cli.json("user", "invite", "--role", "reviewer")
    assert invited["role"] == "reviewer"
    assert invited["link"].startswith("https://chat.example.org/account/link?token=")
    accounts = accounts_of(cli.home)
    ann = accounts.join(token_of(invited["link"]), "Ann", PASSWORD)
    (listed,) = cli.json("user", "list")["users"]
    assert (listed["name"], listed["role"], listed["disabled_at"]) == ("ann", "reviewer", None)
    assert cli.json("user", "role", "ann", "operator") == {"user": "ann", "role": "operator"}
    token = accounts.sessions.begin(ann.id)
    assert len(cli.json("user", "sessions", "ann")["sessions"]) == 1
    assert cli.json("user", "sessions", "ann", "--end")["ended"]
    assert accounts.sessions.person(token) is None
    reset = cli.json("user", "reset", "ann")["link"]
    accounts.reset_password(token_of(reset), "a new one for ann")
    made = cli.json("key", "create", "ann", "--scope", "chat", "--label", "notes")
    assert re.fullmatch(r"burnish-[\w-]{43}", made["key"])
    (key,) = cli.json("key", "list")["keys"]
    assert (key["user"], key["scopes"], key["last_used"]) == ("ann", ["chat"], None)
    assert made["key"] not in str(key)
    cli.json("key", "revoke", made["id"][:12])
    assert accounts.keys.person(made["key"]) is None
    assert cli.json("user", "disable", "ann")["disabled"]
    assert accounts.check_password("ann", "a new one for ann") is None
    assert not cli.json("user", "disable", "ann", "--enable")["disabled"]
    audit = [(e["actor"], e["action"], e["subject"]) for e in cli.json("audit")["audit"]]
    assert audit[::-1] == [
        ("command line", "invite", "reviewer"),
        ("command line", "change role to operator", "ann"),
        ("command line", "end sessions", "ann"),
        ("command line", "offer reset", "ann"),
        ("command line", "create key", made["id"]),
        ("command line", "revoke key", made["id"]),
        ("command line", "disable", "ann"),
        ("command line", "enable", "ann"),
    ]


def test_what_is_unknown_is_said_in_one_sentence(cli: Cli, quick: None) -> None:
    for command, said in (
        (("user", "role", "ann", "operator"), "there is no account 'ann'"),
        (("user", "invite", "--role", "king"), "unknown role 'king'; known: user, reviewer"),
        (("key", "revoke", "abc"), "no single key in use has the id 'abc'"),
        (("key", "list", "ann"), "there is no account 'ann'"),
    ):
        _, errors = cli(*command, status=1)
        assert said in errors


def accounts_of(home: Path) -> Accounts:
    settings = load_settings(home=home)
    return Accounts(Database(database_url(Home(home), settings.database_url)))
