"""API keys: secrets of programs, each with a person and scopes. Knows no headers.

A key is shown once and stored as a digest. Its person has the account's role, so that a key may
never do more than its owner.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import insert, select, update

from engine.errors import InvalidInput, UnknownId
from engine.messages import clean_text
from feedback_store.accounts import tables as t
from feedback_store.accounts.passwords import new_secret, secret_digest
from feedback_store.accounts.person import KEY_SCOPES, Person, Scope
from feedback_store.accounts.sessions import note_use
from feedback_store.storage.database import Database

KEY_PREFIX = "burnish-"  # so that scanners of secrets, and people, recognise one
MAX_KEY_LABEL_CHARS = 64


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The facts about a key; the key itself is not known."""

    id: str
    account_id: str
    label: str
    scopes: tuple[Scope, ...]
    used_on: str | None
    revoked_at: float | None
    created_at: float


class ApiKeys:
    """The keys of all accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, account_id: str, scopes: Collection[str] = ("chat", "feedback"), label: str = ""
    ) -> tuple[ApiKey, str]:
        """Create a key; returns it and the secret, which nobody can read again."""
        unknown = sorted(set(scopes) - set(KEY_SCOPES))
        if unknown or not scopes:
            known = ", ".join(KEY_SCOPES)
            raise InvalidInput(f"a key needs scopes out of {known}; not {', '.join(unknown)!r}")
        label = clean_text(label, what="label", limit_chars=MAX_KEY_LABEL_CHARS)
        ordered = tuple(scope for scope in KEY_SCOPES if scope in scopes)
        made = ApiKey(uuid.uuid4().hex, account_id, label, ordered, None, None, time.time())
        secret = KEY_PREFIX + new_secret()
        row = {name: getattr(made, name) for name in made.__dataclass_fields__}
        row |= {"scopes": list(ordered), "digest": secret_digest(secret)}
        with self._database.write() as connection:
            connection.execute(insert(t.api_keys).values(row))
        return made, secret

    def person(self, secret: str) -> Person | None:
        """Return whose key it is; None if it is unknown, revoked or its account disabled."""
        keys, accounts = t.api_keys.c, t.accounts.c
        query = (
            select(keys.id, keys.scopes, keys.used_on, accounts.id, accounts.name, accounts.role)
            .join(t.accounts, accounts.id == keys.account_id)
            .where(
                keys.digest == secret_digest(secret),
                keys.revoked_at.is_(None),
                accounts.disabled_at.is_(None),
            )
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        key_id, scopes, used_on, account_id, name, role = row
        note_use(self._database, t.api_keys, key_id, used_on)
        granted = frozenset(cast("list[Scope]", scopes))
        return Person(account_id, role, granted, name, key_id=key_id)

    def of(self, account_id: str | None = None) -> Sequence[ApiKey]:
        """Return an account's keys, or everybody's, the newest first, with those revoked."""
        query = select(*(c for c in t.api_keys.c if c.name != "digest"))
        if account_id is not None:
            query = query.where(t.api_keys.c.account_id == account_id)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(t.api_keys.c.created_at.desc())).mappings()
            return [ApiKey(**{**row, "scopes": tuple(row["scopes"])}) for row in rows]

    def revoke(self, key_id: str, account_id: str | None = None) -> ApiKey:
        """Revoke a key, by its id or a beginning of it; of this account alone, if one is given.

        Raises `UnknownId` where no key that works, or several, begin so.
        """
        found = [
            key
            for key in self.of(account_id)
            if key_id and key.id.startswith(key_id) and key.revoked_at is None
        ]
        if len(found) != 1:
            raise UnknownId(f"no single key in use has the id {key_id[:80]!r}")
        with self._database.write() as connection:
            revoked = update(t.api_keys).where(t.api_keys.c.id == found[0].id)
            connection.execute(revoked.values(revoked_at=time.time()))
        return found[0]
