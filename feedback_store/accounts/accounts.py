"""Accounts and the one-time links by which people join or set a new password.

Names are unique whatever their case. A link is a secret that works once and until it expires.
Knows tables; knows no pages, no cookies and no limits on guessing.
"""

from __future__ import annotations

import re
import time
import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from engine.errors import Conflict, InvalidInput, UnknownId
from engine.units import DAY_SECONDS
from feedback_store.accounts import tables as t
from feedback_store.accounts.audit import AuditLog
from feedback_store.accounts.keys import ApiKeys
from feedback_store.accounts.passwords import hash_password, is_password, new_secret, secret_digest
from feedback_store.accounts.person import ACCOUNT_ROLES, AccountRole, Person
from feedback_store.accounts.sessions import LoginSessions, end_sessions
from feedback_store.storage.database import Database

INVITATION_SECONDS = 7 * DAY_SECONDS
RESET_SECONDS = DAY_SECONDS
MAX_NAME_CHARS = 64
NAME = re.compile(rf"\w[\w.@+-]{{0,{MAX_NAME_CHARS - 1}}}")
USED_LINK = "this link was used, has expired or never was one; ask for another"


@dataclass(frozen=True, slots=True)
class Account:
    """A person who may sign in."""

    id: str
    name: str
    role: AccountRole
    disabled_at: float | None
    created_at: float


@dataclass(frozen=True, slots=True)
class AccountLink:
    """The purpose of a link: to join with a role, or to set the password of an account."""

    role: AccountRole | None
    account_id: str | None


class Accounts:
    """The accounts of one database, whose tables it brings to their newest version."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate(
            Path(__file__).with_name("migrations"), version_table="alembic_version_accounts"
        )
        self.sessions = LoginSessions(database)
        self.keys = ApiKeys(database)
        self.audit = AuditLog(database)

    def list(self) -> Sequence[Account]:
        """Return all accounts, by name."""
        with self._database.read() as connection:
            return _accounts(connection)

    def get(self, account_id: str) -> Account:
        """Return an account by its id; raises `UnknownId`."""
        return self._one(t.accounts.c.id == account_id, account_id)

    def find(self, name: str) -> Account:
        """Return an account by its name; raises `UnknownId`."""
        return self._one(t.accounts.c.name == folded_name(name), name)

    def has_operator(self) -> bool:
        """Return whether somebody can sign in as an operator."""
        return any(each.role == "operator" and each.disabled_at is None for each in self.list())

    # Links

    def invite(self, role: str = "user") -> str:
        """Return the secret of a new invitation; raises `InvalidInput` for an unknown role."""
        return self._new_link(INVITATION_SECONDS, role=_known_role(role))

    def invite_first_operator(self) -> str:
        """Return the secret of an operator's invitation; those of before it no longer work."""
        with self._database.write() as connection:
            connection.execute(delete(t.links).where(t.links.c.role == "operator"))
        return self.invite("operator")

    def offer_reset(self, account_id: str) -> str:
        """Return the secret by which an account's person sets a new password."""
        self.get(account_id)
        return self._new_link(RESET_SECONDS, account_id=account_id)

    def link(self, secret: str) -> AccountLink:
        """Return what a link is for, without using it; raises `UnknownId` if it does not work."""
        with self._database.read() as connection:
            return _link(connection, secret)

    def join(self, secret: str, name: str, password: str) -> Account:
        """Use an invitation: create the account. A refused name or password uses nothing up.

        Raises `UnknownId`, `InvalidInput` for the password or name, `Conflict` for a taken name.
        """
        hashed = hash_password(password)
        with self._database.write() as connection:
            role = _link(connection, secret).role
            if role is None:
                raise UnknownId(USED_LINK)
            account = _add(connection, name, role, password_hash=hashed)
            connection.execute(delete(t.links).where(t.links.c.digest == secret_digest(secret)))
            return account

    def reset_password(self, secret: str, password: str) -> Account:
        """Use a reset link: set the password, end every session, make other resets invalid."""
        hashed = hash_password(password)
        with self._database.write() as connection:
            account_id = _link(connection, secret).account_id
            if account_id is None:
                raise UnknownId(USED_LINK)
            connection.execute(delete(t.links).where(t.links.c.account_id == account_id))
            _set_password(connection, account_id, hashed)
        return self.get(account_id)

    def _new_link(
        self, seconds: float, *, role: AccountRole | None = None, account_id: str | None = None
    ) -> str:
        secret, now = new_secret(), time.time()
        row = {"role": role, "account_id": account_id, "digest": secret_digest(secret)}
        with self._database.write() as connection:
            connection.execute(delete(t.links).where(t.links.c.expires_at < now))
            connection.execute(
                insert(t.links).values(**row, created_at=now, expires_at=now + seconds)
            )
        return secret

    # Passwords

    def check_password(self, name: str, password: str) -> Account | None:
        """Return the account that a name and password prove; takes as long for unknown names."""
        with self._database.read() as connection:
            query = select(t.accounts.c.password_hash).where(t.accounts.c.name == folded_name(name))
            stored = connection.execute(query).scalar_one_or_none()
        if not is_password(password, stored):
            return None
        account = self.find(name)
        return account if account.disabled_at is None else None

    def change_password(self, account_id: str, new: str, *, session_id: str | None) -> None:
        """Set a password; every session but the given one ends. The caller has checked the old."""
        hashed = hash_password(new)
        with self._database.write() as connection:
            _set_password(connection, account_id, hashed, but=session_id)

    # For operators

    def set_role(self, account_id: str, role: str) -> None:
        """Give an account another role, which holds from its next request on."""
        self._change(account_id, role=_known_role(role))

    def set_disabled(self, account_id: str, disabled: bool) -> None:
        """Lock an account out, with its sessions and keys, or let it in again."""
        self._change(account_id, disabled_at=time.time() if disabled else None)
        if disabled:
            self.sessions.end_all(account_id)

    def vouched_for(self, origin: str, name: str) -> Person | None:
        """Return the person whom another system vouches for; None if the account is disabled.

        `origin` says who they are there, for good. At first an account with that name is created;
        raises `Conflict` if the name is somebody else's here.
        """
        with self._database.read() as connection:
            found = _accounts(connection, t.accounts.c.origin == origin)
        if not found:
            with self._database.write() as connection:
                known = _accounts(connection, t.accounts.c.origin == origin)
                found = known or [_add(connection, name, "user", origin=origin)]
        (account,) = found
        if account.disabled_at is not None:
            return None
        return Person(account.id, account.role, name=account.name)

    def data(self, account_id: str) -> dict[str, Any]:
        """Return what is stored of an account, but for secrets' digests; empty if it is none."""
        with self._database.read() as connection:
            account = _accounts(connection, t.accounts.c.id == account_id)
            rows = {}
            for table in (t.login_sessions, t.api_keys):
                shown = [c for c in table.c if c.name not in ("digest", "account_id")]
                query = select(*shown).where(table.c.account_id == account_id)
                rows[table.name] = [dict(row) for row in connection.execute(query).mappings()]
        return {**asdict(account[0]), **rows} if account else {}

    def delete(self, account_id: str) -> bool:
        """Delete an account with its links, sessions and keys; returns whether there was one."""
        with self._database.write() as connection:
            for table in (t.links, t.login_sessions, t.api_keys):
                connection.execute(delete(table).where(table.c.account_id == account_id))
            which = t.accounts.c.id == account_id
            return connection.execute(delete(t.accounts).where(which)).rowcount > 0

    def _change(self, account_id: str, **values: object) -> None:
        with self._database.write() as connection:
            which = t.accounts.c.id == account_id
            if connection.execute(update(t.accounts).where(which).values(values)).rowcount == 0:
                raise UnknownId("there is no such account")

    def _one(self, which: ColumnElement[bool], said: str) -> Account:
        with self._database.read() as connection:
            found = _accounts(connection, which)
        if not found:
            raise UnknownId(f"there is no account {said[:80]!r}")
        return found[0]


def _known_role(role: str) -> AccountRole:
    for known in ACCOUNT_ROLES:
        if role == known:
            return known
    raise InvalidInput(f"unknown role {role[:40]!r}; known: {', '.join(ACCOUNT_ROLES)}")


def _accounts(connection: Connection, *which: ColumnElement[bool]) -> list[Account]:
    columns = [t.accounts.c[name] for name in Account.__dataclass_fields__]
    query = select(*columns).where(*which).order_by(t.accounts.c.name)
    return [Account(**row) for row in connection.execute(query).mappings()]


def _add(connection: Connection, name: str, role: AccountRole, **values: object) -> Account:
    folded = folded_name(name)
    if not NAME.fullmatch(folded):
        raise InvalidInput("a name has letters, digits and . @ + - _, 64 of them at most")
    made = Account(uuid.uuid4().hex, folded, role, None, time.time())
    row = {field: getattr(made, field) for field in made.__dataclass_fields__}
    query = select(func.count()).select_from(t.accounts).where(t.accounts.c.name == folded)
    if connection.execute(query).scalar_one():
        raise Conflict("this name is taken; choose another one")
    connection.execute(insert(t.accounts).values(**row, **values))
    return made


def _set_password(
    connection: Connection, account_id: str, hashed: str, *, but: str | None = None
) -> None:
    which = t.accounts.c.id == account_id
    connection.execute(update(t.accounts).where(which).values(password_hash=hashed))
    end_sessions(connection, account_id, but=but)


def _link(connection: Connection, secret: str) -> AccountLink:
    query = select(t.links.c.role, t.links.c.account_id).where(
        t.links.c.digest == secret_digest(secret), t.links.c.expires_at > time.time()
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise UnknownId(USED_LINK)
    return AccountLink(**row)


def folded_name(name: str) -> str:
    """Return the form in which names are compared and stored; what no name has becomes "?"."""
    folded = unicodedata.normalize("NFKC", name.strip()).casefold()
    return re.sub(r"[^\w.@+-]", "?", folded)[: MAX_NAME_CHARS + 1]
