"""Addresses of the one-time links by which people join or set a new password.

Knows where the account's page is; knows no requests.
"""

from __future__ import annotations

from app.settings import Settings
from feedback_store.accounts.accounts import Accounts


def link_address(base: str, secret: str) -> str:
    """Return a link's address on a server."""
    return f"{base}/account/link?token={secret}"


def first_operator_link(accounts: Accounts, settings: Settings, address: str) -> str | None:
    """Return a new link for the first operator where accounts are asked for and none is theirs.

    `address` is where the server listens; names that browsers use take its place.
    """
    if not settings.has_accounts or accounts.has_operator():
        return None
    base = settings.public_url if settings.allowed_hosts else f"{address}{settings.path_prefix}"
    return link_address(base, accounts.invite_first_operator())
