"""The console's page of people and keys: plain HTML that works without scripts.

Who may sign in and as what, where they are signed in, which keys act for them, and what operators
did lately. Knows the texts and what is shown; reads nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from app.html.account_pages import framed
from app.texts import say
from engine.units import local_minute
from feedback_store.accounts.accounts import Account
from feedback_store.accounts.audit import AuditEntry
from feedback_store.accounts.keys import ApiKey
from feedback_store.accounts.person import ACCOUNT_ROLES
from feedback_store.accounts.sessions import LoginSession

PEOPLE_PATH = "/console/people"
WITH_ACCOUNTS = "BURNISH_ACCOUNTS=true burnish serve"


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """An account with its log-ins and the keys that still work."""

    account: Account
    sessions: Sequence[LoginSession]
    keys: Sequence[ApiKey]


@dataclass(frozen=True, slots=True)
class PeoplePage:
    """The page in one language, under one path prefix."""

    language: str
    root: str

    def without_accounts(self) -> str:
        """Return what stands here on a server without accounts."""
        return self._frame(f"<p>{self._say('off')}</p><p><code>{WITH_ACCOUNTS}</code></p>")

    def show(
        self,
        people: Sequence[KnownPerson],
        acts: Sequence[AuditEntry],
        *,
        own_id: str,
        link: str = "",
        problem: str = "",
    ) -> str:
        """Return the page; `link` is one that was just made, and `own_id` whose page it is."""
        said = f'<p class="error" role="alert">{escape(problem)}</p>' if problem else ""
        if link:
            once = self._say("link_once")
            said += f'<p role="status">{once}</p><code class="secret">{escape(link)}</code>'
        rows = "".join(self._person(each, is_own=each.account.id == own_id) for each in people)
        invite = self._form(
            "/invite",
            f"<label>{self._say('role')}{self._roles('user')}</label>",
            f"<button>{self._say('invite')}</button>",
        )
        return self._frame(
            f"{said}<p>{self._say('about')}</p>{rows}"
            f"<section><h2>{self._say('invite_title')}</h2><p>{self._say('invite_is')}</p>{invite}"
            f"<code>burnish user invite --role ROLE</code></section>{self._acts(acts)}"
        )

    def _person(self, person: KnownPerson, *, is_own: bool) -> str:
        """One person as a line that opens."""
        account = person.account
        role = self._account(f"role_{account.role}")
        marks = f"<i>{role}</i>"
        marks += f"<i>{self._say('disabled')}</i>" * (account.disabled_at is not None)
        marks += f"<i>{self._say('you')}</i>" * is_own
        last = max((each.used_on for each in person.sessions), default="")
        seen = self._say("seen", last=last) if last else self._say("not_signed_in")
        counts = self._say("counts", sessions=len(person.sessions), keys=len(person.keys))
        state = ' class="looked"' if account.disabled_at is not None else ""
        acts = f"<p>{self._say('own')}</p>" if is_own else self._acts_on(account)
        return (
            f"<details{state}><summary><b dir='auto'>{escape(account.name)}</b>"
            f"<small>{seen} · {counts}</small><span>{marks}</span></summary>"
            f"{self._keys(person.keys)}{acts}"
            f"<small>{self._say('id', id=account.id)}</small></details>"
        )

    def _acts_on(self, account: Account) -> str:
        """The acts of an operator on somebody else's account, with the command of each."""
        disables = account.disabled_at is None
        there, name = f"/{account.id}", escape(account.name)
        turn = "disable" if disables else "enable"
        flag = "" if disables else " --enable"
        role = self._form(
            f"{there}/role",
            f"<label>{self._say('role')}{self._roles(account.role)}</label>",
            f"<button>{self._say('change_role')}</button>",
        )
        others = "".join(
            f"<li><span>{self._say(f'{act}_is')}<code>burnish user {command}</code></span>"
            f"{self._form(f'{there}/{act}', f'<button>{self._say(act)}</button>', 'inline')}</li>"
            for act, command in (
                ("reset", f"reset {name}"),
                ("sign_out", f"sessions {name} --end"),
                (turn, f"disable {name}{flag}"),
            )
        )
        return f'{role}<code>burnish user role {name} ROLE</code><ul class="rows">{others}</ul>'

    def _keys(self, keys: Sequence[ApiKey]) -> str:
        rows = "".join(
            f"<li><span>{escape(key.label or key.id[:8])}"
            f"<small>{' · '.join(self._account(f'scope_{scope}') for scope in key.scopes)} · "
            f"{self._account('last_used', last=key.used_on or say('account.never', self.language))}"
            f"</small><code>burnish key revoke {key.id[:12]}</code></span>"
            f"{self._form(f'/keys/{key.id}/revoke', self._revoke(), 'inline')}</li>"
            for key in keys
        )
        title = f"<p><b>{self._account('keys')}</b></p>"
        return f'{title}<ul class="rows">{rows}</ul>' if rows else ""

    def _revoke(self) -> str:
        return f"<button>{self._account('revoke')}</button>"

    def _acts(self, acts: Sequence[AuditEntry]) -> str:
        rows = "".join(
            f"<li><span>{escape(each.action)} <b>{escape(each.subject[:40])}</b>"
            f"<small>{local_minute(each.at)} · {escape(each.actor)}</small></span></li>"
            for each in acts
        )
        listed = f'<ul class="rows">{rows}</ul>' if rows else f"<p>{self._say('no_acts')}</p>"
        title = self._say("acts")
        return f"<section><h2>{title}</h2>{listed}<p><code>burnish audit</code></p></section>"

    def _roles(self, chosen: str) -> str:
        options = "".join(
            f'<option value="{role}"{" selected" if role == chosen else ""}>'
            f"{self._account(f'role_{role}')}</option>"
            for role in ACCOUNT_ROLES
        )
        return f'<select name="role">{options}</select>'

    def _form(self, path: str, *parts: str) -> str:
        inline = ' class="inline"' if parts[-1] == "inline" else ' class="fields"'
        fields = parts[:-1] if parts[-1] == "inline" else parts
        action = escape(f"{self.root}{PEOPLE_PATH}{path}")
        return f'<form{inline} method="post" action="{action}">{"".join(fields)}</form>'

    def _frame(self, content: str) -> str:
        back = (
            f'<nav><a href="{escape(self.root)}/console/">{self._say("back")}</a>'
            f"<code>burnish user list</code></nav>"
        )
        return framed(self.language, self.root, self._say("title"), back + content, "inbox")

    def _account(self, key: str, **values: object) -> str:
        return escape(say(f"account.{key}", self.language, **values))

    def _say(self, key: str, **values: object) -> str:
        return escape(say(f"console.people.{key}", self.language, **values))
