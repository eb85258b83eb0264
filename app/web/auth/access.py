"""Access rules: the role and the scope that each path needs. The one list of them.

A path that no rule names asks for the role "user" and the scope "chat", so that a new route is
open to nobody who is not signed in. Knows paths; knows nothing of cookies and passwords.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from feedback_store.accounts.person import AccountRole, Person, Scope


@dataclass(frozen=True, slots=True)
class Need:
    """The right that a path asks for."""

    scope: Scope | None = "chat"  # None: nothing is asked, not even who it is
    role: AccountRole = "user"

    def is_met_by(self, person: Person) -> bool:
        """Return whether a person may use the path."""
        return person.is_at_least(self.role) and (self.scope is None or self.scope in person.scopes)


PUBLIC = Need(None)
# The first rule whose pattern is the whole path decides
RULES: tuple[tuple[re.Pattern[str], Need], ...] = tuple(
    (re.compile(pattern), need)
    for pattern, need in (
        (r"/(healthz|readyz|favicon\.ico|robots\.txt|page/[\w.-]+)", PUBLIC),
        (r"(/console)?/((assets|static)/.*|theme\.css)", PUBLIC),  # gradio's own files
        (r"/account/(login|link|provider|callback)", PUBLIC),
        (r"/account(/.*)?", Need("account")),
        (r"/console/(compare|comparisons(/.*)?|drafts(/.*)?)", Need("operate", "reviewer")),
        (r"/(console|metrics)(/.*)?", Need("operate", "operator")),
        (r"/chat/person/.*", Need("account")),  # all that is stored of a person, and its end
        (r"/api/documents(/.*)?", Need("chat")),
        (r"/v1/feedback(/.*)?|/api/.*", Need("feedback")),
    )
)
ANY_OTHER = Need()


def need_of(path: str) -> Need:
    """Return what a path within the application asks for."""
    return next((need for pattern, need in RULES if pattern.fullmatch(path)), ANY_OTHER)
