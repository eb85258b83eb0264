"""The account's pages: signing in, joining by a link, and what a person has here.

Plain HTML with forms, without gradio, that works without scripts. Knows the texts and what is
shown; knows no passwords, and reads nothing from the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from app.texts import LANGUAGES, say
from feedback_store.accounts.accounts import AccountLink
from feedback_store.accounts.keys import ApiKey
from feedback_store.accounts.passwords import MIN_PASSWORD_CHARS
from feedback_store.accounts.person import KEY_SCOPES, Person
from feedback_store.accounts.sessions import LoginSession

ACCOUNT_SCRIPT = "sign_in.js"
FRAME = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} – Burnish</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{root}/page/page.css">
<script type="module" src="{root}/page/{script}"></script>
</head>
<body>
<div id="burnish" class="account" lang="{language}" data-root="{root}">
<main class="{width}">
<div class="brand">Burnish</div>
<h1>{title}</h1>
{content}
<p class="language" hidden><select id="language" aria-label="{choose}">{languages}</select></p>
</main>
</div>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class AccountPages:
    """The pages in one language, under one path prefix."""

    language: str
    root: str

    def sign_in(
        self, wanted: str, *, problem: str = "", name: str = "", has_provider: bool = False
    ) -> str:
        """Return the log-in page; `wanted` is where it leads."""
        there = self._link(f"/account/provider?next={quote(wanted)}", "provider")
        content = (
            _problem(problem)
            + self._form(
                "/account/login",
                _hidden("next", wanted),
                _field(self._say("name"), "name", name, 'autocomplete="username" autofocus'),
                self._password("password", "password", "current-password"),
                _button(self._say("sign_in")),
            )
            + f"<nav>{there}</nav>" * has_provider
            + f'<p class="small">{self._say("by_invitation")}</p>'
        )
        return self._page("sign_in", content, narrow=True)

    def use_link(self, link: AccountLink, token: str, *, problem: str = "", name: str = "") -> str:
        """Return the page on which somebody joins, or sets a new password."""
        joins = link.role is not None
        title = "join" if joins else "new_password"
        content = (
            _problem(problem)
            + f"<p>{self._say('join_is' if joins else 'reset_is', least=MIN_PASSWORD_CHARS)}</p>"
            + self._form(
                "/account/link",
                _hidden("token", token),
                _field(self._say("name"), "name", name, 'autocomplete="username"') * joins,
                self._password("password", "password", "new-password"),
                self._password("again", "again", "new-password"),
                _button(self._say(title)),
            )
        )
        return self._page(title, content, narrow=True)

    def refused(self, problem: str) -> str:
        """Return a page that says what does not work, with the way to the log-in page."""
        content = _problem(problem) + self._link("/account/login", "sign_in")
        return self._page("sign_in", content, narrow=True)

    def adopt(self, conversations: int, documents: int) -> str:
        """Return the question whether what this browser had becomes the account's."""
        found = {"conversations": conversations, "documents": documents}
        content = (
            f"<p>{self._say('adopt_is', **found)}</p>"
            + self._form("/account/adopt", _hidden("keep", "yes"), _button(self._say("adopt_keep")))
            + self._form("/account/adopt", _hidden("keep", "no"), self._quiet("adopt_leave"))
        )
        return self._page("adopt", content, narrow=True)

    def account(
        self,
        person: Person,
        sessions: Sequence[LoginSession],
        keys: Sequence[ApiKey],
        *,
        problem: str = "",
        done: str = "",
        secret: str = "",
    ) -> str:
        """Return the page of a signed-in person; `secret` is a key that was just made."""
        ways = [self._link("/", "to_chat")]
        if person.is_at_least("reviewer"):
            ways.append(self._link("/console/compare", "to_queue"))
            ways.append(self._link("/console/drafts", "to_drafts"))
        if person.is_at_least("operator"):
            ways.append(self._link("/console/", "to_console"))
        content = "".join(
            (
                _problem(problem),
                f'<p class="done" role="status">{escape(done)}</p>' * bool(done),
                f"<p>{escape(person.name or '')} · {self._say(f'role_{person.role}')}</p>",
                f"<nav>{''.join(ways)}{self._inline('/account/logout', 'sign_out')}</nav>",
                self._sessions(person, sessions),
                self._keys(keys, secret),
                f"<h2>{self._say('change_password')}</h2>",
                self._form(
                    "/account/password",
                    self._password("old_password", "old", "current-password"),
                    self._password("new_password", "password", "new-password"),
                    self._password("again", "again", "new-password"),
                    _button(self._say("change_password")),
                ),
            )
        )
        return self._page("account", content)

    def _sessions(self, person: Person, sessions: Sequence[LoginSession]) -> str:
        rows = []
        for each in sessions:
            here = each.id == person.session_id
            days = self._say("since", since=_day(each.created_at), last=each.used_on)
            end = self._inline(f"/account/sessions/{each.id}/end", "end")
            name = self._say("this_browser" if here else "a_browser")
            rows.append(f"<span>{name}<small>{days}</small></span>{'' if here else end}")
        others = self._form("/account/sessions/end", self._quiet("end_others"))
        return f"<h2>{self._say('sessions')}</h2>{_rows(rows)}" + others * (len(sessions) > 1)

    def _keys(self, keys: Sequence[ApiKey], secret: str) -> str:
        rows = []
        for each in keys:
            if each.revoked_at is not None:
                continue
            scopes = " · ".join(self._say(f"scope_{scope}") for scope in each.scopes)
            last = self._say("last_used", last=each.used_on or self._say("never"))
            name = escape(each.label or each.id[:8])
            revoke = self._inline(f"/account/keys/{each.id}/revoke", "revoke")
            rows.append(f"<span>{name}<small>{scopes}<br>{last}</small></span>{revoke}")
        choices = "".join(
            f'<label class="choice"><input type="checkbox" name="scope" value="{scope}"'
            f"{'' if scope == 'operate' else ' checked'}>{self._say(f'scope_{scope}')}</label>"
            for scope in KEY_SCOPES
        )
        shown = f"<p>{self._say('key_once')}</p><code id='key'>{escape(secret)}</code>"
        create = self._form(
            "/account/keys",
            _field(self._say("label"), "label", "", 'maxlength="64"'),
            choices,
            self._quiet("create_key"),
        )
        return (
            f'<h2 id="keys">{self._say("keys")}</h2><p>{self._say("keys_are")}</p>'
            + shown * bool(secret)
            + _rows(rows)
            + create
        )

    def _page(self, title: str, content: str, *, narrow: bool = False) -> str:
        width = "narrow" if narrow else ""
        return framed(self.language, self.root, self._say(title), content, width)

    def _form(self, path: str, *parts: str) -> str:
        return f'<form method="post" action="{escape(self.root + path)}">{"".join(parts)}</form>'

    def _inline(self, path: str, text: str) -> str:
        action = escape(self.root + path)
        button = f'<button class="link">{self._say(text)}</button>'
        return f'<form class="inline" method="post" action="{action}">{button}</form>'

    def _link(self, path: str, text: str) -> str:
        return f'<a href="{escape(self.root + path)}">{self._say(text)}</a>'

    def _quiet(self, text: str) -> str:
        return f'<div><button class="link">{self._say(text)}</button></div>'

    def _password(self, text: str, name: str, kind: str) -> str:
        return _field(self._say(text), name, "", f'type="password" autocomplete="{kind}"')

    def _say(self, key: str, **values: object) -> str:
        return escape(say(f"account.{key}", self.language, **values))


def framed(language: str, root: str, title: str, content: str, width: str) -> str:
    """Return a whole page; `title` and `content` are HTML, `width` is the main part's class."""
    return FRAME.format(
        language=language,
        root=escape(root),
        title=title,
        content=content,
        width=width,
        script=ACCOUNT_SCRIPT,
        choose=escape(say("common.language", language)),
        languages=language_options(language),
    )


def language_options(chosen: str) -> str:
    """Return the options of the list of languages."""
    return "".join(
        f'<option value="{code}"{" selected" if code == chosen else ""}>{name}</option>'
        for code, name in LANGUAGES.items()
    )


def _field(label: str, name: str, value: str, attributes: str) -> str:
    value = f' value="{escape(value)}"' if value else ""
    needed = "" if name == "label" else " required"
    return f'<label>{label}<input name="{name}"{value} {attributes}{needed}></label>'


def _hidden(name: str, value: str) -> str:
    return f'<input type="hidden" name="{name}" value="{escape(value)}">'


def _button(text: str) -> str:
    return f'<button class="primary">{text}</button>'


def _problem(said: str) -> str:
    return f'<p class="error" role="alert">{escape(said)}</p>' if said else ""


def _rows(rows: Sequence[str]) -> str:
    items = "".join(f"<li>{row}</li>" for row in rows)
    return f'<ul class="rows">{items}</ul>' if rows else ""


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
