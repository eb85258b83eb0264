"""The person who asks: id, role and scopes. Knows no names, passwords, cookies or tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

AccountRole = Literal["user", "reviewer", "operator"]  # each may do what those before it may
Scope = Literal["chat", "feedback", "operate", "account"]
ACCOUNT_ROLES: tuple[AccountRole, ...] = get_args(AccountRole)
EVERY_SCOPE: frozenset[Scope] = frozenset(get_args(Scope))
# A key never has "account": it would outlive the password that it could change
KEY_SCOPES: tuple[Scope, ...] = ("chat", "feedback", "operate")


@dataclass(frozen=True, slots=True)
class Person:
    """The person behind a request. `id` owns what they ask and say; `name` is an account's."""

    id: str
    role: AccountRole = "user"
    scopes: frozenset[Scope] = EVERY_SCOPE
    name: str | None = None
    key_id: str | None = None  # of the API key that the request came with
    session_id: str | None = None  # of the log-in that the request came with

    def is_at_least(self, role: AccountRole) -> bool:
        """Return whether the person has a role, or one that may do more."""
        return ACCOUNT_ROLES.index(self.role) >= ACCOUNT_ROLES.index(role)
