"""Accounts, links, sessions, keys and the audit log, on SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import DatabaseError

from engine.errors import BurnishError, Conflict, InvalidInput, UnknownId
from feedback_store.accounts.accounts import INVITATION_SECONDS, RESET_SECONDS, Account, Accounts
from feedback_store.accounts.person import AccountRole, Person
from feedback_store.accounts.sessions import IDLE_DAYS
from feedback_store.accounts.tables import account_metadata
from feedback_store.storage.database import Database
from tests.feedback_store.conftest import sqlite_url
from tests.postgresql import Server

PASSWORD = "correct horse battery"
DAY = 24 * 3600


@pytest.fixture(autouse=True)
def quick(quick_passwords: None) -> None:
    """The cost of a hash is argon2's affair."""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a table."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    server: Server = request.getfixturevalue("postgresql")
    return server.create()


@pytest.fixture
def accounts(url: str) -> Iterator[Accounts]:
    database = Database(url)
    yield Accounts(database)
    database.close()


@pytest.fixture
def sqlite_accounts(tmp_path: Path) -> Iterator[Accounts]:
    """For what is no question of the database."""
    database = Database(sqlite_url(tmp_path))
    yield Accounts(database)
    database.close()


def join(accounts: Accounts, name: str = "ann", role: AccountRole = "user") -> Account:
    return accounts.join(accounts.invite(role), name, PASSWORD)


class Clock:
    """A clock that tests set on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now, self._patch = time.time(), monkeypatch

    def go_on(self, seconds: float) -> None:
        self._now += seconds
        self._patch.setattr(time, "time", lambda: self._now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_tables_in_the_code_are_those_of_the_migrations(url: str) -> None:
    database = Database(url)
    Accounts(database)
    with database.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "alembic_version_accounts", "compare_type": True}
        )
        known = account_metadata.tables
        assert [
            difference
            for difference in compare_metadata(context, account_metadata)
            if not (difference[0] == "remove_table" and difference[1].name not in known)
        ] == []
    database.close()


def test_an_invitation_works_once_and_gives_its_role(accounts: Accounts) -> None:
    assert not accounts.has_operator()
    invitation = accounts.invite("operator")
    assert accounts.link(invitation).role == "operator"
    ann = accounts.join(invitation, " Ann ", PASSWORD)
    assert (ann.name, ann.role) == ("ann", "operator")
    assert accounts.has_operator()
    assert accounts.find("ANN") == accounts.get(ann.id) == ann
    for use in (accounts.link, lambda secret: accounts.join(secret, "bob", PASSWORD)):
        with pytest.raises(UnknownId, match="this link was used"):
            use(invitation)
    assert [each.name for each in accounts.list()] == ["ann"]


def test_a_refused_name_or_password_uses_no_invitation_up(accounts: Accounts) -> None:
    join(accounts, "ann")
    invitation = accounts.invite()
    refused: list[tuple[str, str, type[BurnishError]]] = [
        ("bob", "eleven char", InvalidInput),
        ("ann", PASSWORD, Conflict),
        ("Ａｎｎ", PASSWORD, Conflict),
        ("", PASSWORD, InvalidInput),
        ("a b", PASSWORD, InvalidInput),
        ("<b>", PASSWORD, InvalidInput),
        ("x" * 65, PASSWORD, InvalidInput),
        ("nul\x00", PASSWORD, InvalidInput),
        ("\ud800", PASSWORD, InvalidInput),
    ]
    for name, password, error in refused:
        with pytest.raises(error):
            accounts.join(invitation, name, password)
    assert accounts.join(invitation, "李雷", PASSWORD).name == "李雷"


def test_links_expire_and_a_link_for_one_thing_does_not_do_the_other(
    sqlite_accounts: Accounts, clock: Clock
) -> None:
    accounts = sqlite_accounts
    ann = join(accounts)
    invitation, reset = accounts.invite(), accounts.offer_reset(ann.id)
    with pytest.raises(UnknownId):
        accounts.reset_password(invitation, PASSWORD)
    with pytest.raises(UnknownId):
        accounts.join(reset, "bob", PASSWORD)
    clock.go_on(RESET_SECONDS + 1)
    with pytest.raises(UnknownId):
        accounts.reset_password(reset, PASSWORD)
    clock.go_on(INVITATION_SECONDS)
    with pytest.raises(UnknownId):
        accounts.join(invitation, "bob", PASSWORD)


def test_the_first_operators_link_of_the_last_start_alone_works(sqlite_accounts: Accounts) -> None:
    first, second = (sqlite_accounts.invite_first_operator() for _ in range(2))
    with pytest.raises(UnknownId):
        sqlite_accounts.link(first)
    assert sqlite_accounts.link(second).role == "operator"


def test_a_password_proves_the_account(accounts: Accounts) -> None:
    ann = join(accounts)
    assert accounts.check_password("Ann", PASSWORD) == ann
    for name, password in [("ann", PASSWORD + "."), ("ann", ""), ("bob", PASSWORD), ("\x00", "")]:
        assert accounts.check_password(name, password) is None
    accounts.set_disabled(ann.id, True)
    assert accounts.check_password("ann", PASSWORD) is None
    accounts.set_disabled(ann.id, False)
    assert accounts.check_password("ann", PASSWORD) == ann


def test_no_secret_is_in_the_database(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path))
    accounts = Accounts(database)
    ann = join(accounts)
    secrets = [accounts.invite(), accounts.offer_reset(ann.id), accounts.sessions.begin(ann.id)]
    secrets += [accounts.keys.create(ann.id)[1], PASSWORD]
    database.close()
    stored = "\n".join(sqlite3.connect(tmp_path / "burnish.db").iterdump())
    assert "$argon2id$" in stored
    assert not [secret for secret in secrets if secret in stored]


def test_a_session_is_its_accounts_until_it_ends(accounts: Accounts) -> None:
    ann, bob = join(accounts, "ann"), join(accounts, "bob")
    here, there = accounts.sessions.begin(ann.id), accounts.sessions.begin(ann.id)
    person = accounts.sessions.person(here)
    assert person is not None
    assert (person.id, person.name, person.role) == (ann.id, "ann", "user")
    assert "account" in person.scopes
    accounts.set_role(ann.id, "reviewer")
    now = accounts.sessions.person(here)
    assert now is not None
    assert now.is_at_least("reviewer") and not now.is_at_least("operator")
    assert accounts.sessions.person("x") is None
    session = now.session_id or ""
    with pytest.raises(UnknownId):
        accounts.sessions.end(session, bob.id)
    accounts.sessions.end(session, ann.id)
    assert accounts.sessions.person(here) is None
    assert accounts.sessions.person(there) is not None
    assert len(accounts.sessions.of(ann.id)) == 1
    accounts.set_disabled(ann.id, True)
    accounts.set_disabled(ann.id, False)
    assert accounts.sessions.person(there) is None


def test_a_session_that_is_not_used_is_over(sqlite_accounts: Accounts, clock: Clock) -> None:
    ann = join(sqlite_accounts)
    token = sqlite_accounts.sessions.begin(ann.id)
    for _ in range(3):  # each use counts
        clock.go_on((IDLE_DAYS - 1) * DAY)
        assert sqlite_accounts.sessions.person(token) is not None
    clock.go_on((IDLE_DAYS + 1) * DAY)
    assert sqlite_accounts.sessions.person(token) is None
    assert sqlite_accounts.sessions.of(ann.id) == []


def test_a_new_password_ends_the_other_sessions(accounts: Accounts) -> None:
    ann = join(accounts)
    here, there = accounts.sessions.begin(ann.id), accounts.sessions.begin(ann.id)
    person = accounts.sessions.person(here)
    assert person is not None
    with pytest.raises(InvalidInput):
        accounts.change_password(ann.id, "short", session_id=person.session_id)
    accounts.change_password(ann.id, "another one here", session_id=person.session_id)
    assert accounts.sessions.person(here) is not None
    assert accounts.sessions.person(there) is None
    assert accounts.check_password("ann", PASSWORD) is None
    first, second = accounts.offer_reset(ann.id), accounts.offer_reset(ann.id)
    assert accounts.reset_password(first, PASSWORD) == ann
    assert accounts.sessions.person(here) is None
    with pytest.raises(UnknownId):
        accounts.reset_password(second, "a stranger's word")
    assert accounts.check_password("ann", PASSWORD) == ann


def test_a_key_has_its_scopes_and_its_owners_role(accounts: Accounts, clock: Clock) -> None:
    ann, bob = join(accounts, "ann"), join(accounts, "bob")
    key, secret = accounts.keys.create(ann.id, ["feedback", "chat"], "notes")
    assert (key.scopes, key.used_on) == (("chat", "feedback"), None)
    assert accounts.keys.person(secret) == Person(
        ann.id, "user", frozenset({"chat", "feedback"}), "ann", key_id=key.id
    )
    (listed,) = accounts.keys.of(ann.id)
    assert listed.used_on == time.strftime("%Y-%m-%d", time.gmtime())
    clock.go_on(DAY)
    accounts.keys.person(secret)
    assert accounts.keys.of()[0].used_on != listed.used_on
    accounts.set_disabled(ann.id, True)
    assert accounts.keys.person(secret) is None
    accounts.set_disabled(ann.id, False)
    with pytest.raises(UnknownId):
        accounts.keys.revoke(key.id, bob.id)
    accounts.keys.revoke(key.id[:8], ann.id)
    assert accounts.keys.person(secret) is None
    with pytest.raises(UnknownId):
        accounts.keys.revoke(key.id)
    for scopes in ([], ["account"], ["chat", "everything"]):
        with pytest.raises(InvalidInput, match="a key needs scopes"):
            accounts.keys.create(ann.id, scopes)


def test_the_audit_log_names_who_and_what_and_is_append_only(accounts: Accounts) -> None:
    ann = join(accounts, "ann", "operator")
    accounts.audit.record("command line", "invite", "operator")
    accounts.audit.record(ann.id, "promote", "sha256:abc")
    accounts.audit.record(ann.id, "change role", ann.id)
    said = [(e.actor, e.action, e.subject) for e in accounts.audit.entries()]
    assert said == [
        ("ann", "change role", "ann"),
        ("ann", "promote", "sha256:abc"),
        ("command line", "invite", "operator"),
    ]
    assert len(accounts.audit.entries(limit=1)) == 1
    for statement in ("UPDATE audit SET actor = 'bob'", "DELETE FROM audit"):
        with (
            pytest.raises(DatabaseError, match="append only"),
            accounts._database._engine.begin() as bare,
        ):
            bare.exec_driver_sql(statement)
    assert len(accounts.audit.entries()) == 3


def test_of_a_deleted_account_nothing_but_an_id_is_left(accounts: Accounts) -> None:
    ann = join(accounts, "ann")
    accounts.sessions.begin(ann.id)
    accounts.keys.create(ann.id)
    accounts.offer_reset(ann.id)
    accounts.audit.record(ann.id, "forget", ann.id)
    data = accounts.data(ann.id)
    assert (data["name"], len(data["login_sessions"]), len(data["api_keys"])) == ("ann", 1, 1)
    assert "digest" not in str(data)
    assert accounts.delete(ann.id)
    assert not accounts.delete(ann.id)
    assert accounts.list() == []
    assert accounts.data(ann.id) == {}
    (entry,) = accounts.audit.entries()
    assert entry.actor == entry.subject == ann.id


def test_who_comes_from_elsewhere_is_one_account(accounts: Accounts) -> None:
    first = accounts.vouched_for("https://id.example|17", "ann")
    assert first is not None
    assert accounts.vouched_for("https://id.example|17", "anna") == first
    assert accounts.check_password("ann", "") is None  # there is no password
    with pytest.raises(Conflict):
        accounts.vouched_for("https://id.example|18", "ann")
    accounts.set_disabled(first.id, True)
    assert accounts.vouched_for("https://id.example|17", "ann") is None
