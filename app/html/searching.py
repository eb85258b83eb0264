"""A search of the operator's, in the words of a language: which reasons and people it names."""

from __future__ import annotations

from app.texts import catalogue
from feedback_store.accounts.accounts import Accounts
from feedback_store.storage.wanted import Wanted


def search_for(words: str, language: str, accounts: Accounts) -> Wanted:
    """Return the search: the words, the reasons that are called so, and the people."""
    wanted = words.strip().casefold()
    if not wanted:
        return Wanted()
    reasons = catalogue(language, "reasons").items()
    return Wanted(
        wanted,
        frozenset(code for code, name in reasons if wanted in name.casefold()),
        frozenset(each.id for each in accounts.list() if wanted in each.name.casefold()),
    )
