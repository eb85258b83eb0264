"""The inbox of down-voted answers as a page: plain HTML that works without scripts.

What people wrote is shown as text. Knows the texts and what is shown; reads nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import urlencode

from app.html.account_pages import framed
from app.html.release_names import release_name
from app.texts import say, translated
from engine.excerpts import one_line
from engine.units import local_minute
from feedback_store.curation.inbox import DownVote

INBOX_PATH = "/console/inbox"
VOTES_A_PAGE = 20
LINE_CHARS = 160  # of a text in the list


@dataclass(frozen=True, slots=True)
class InboxFilter:
    """The choice of what is shown: the words searched for, and whether looked-at votes are, too."""

    words: str = ""
    looked_at: bool = False
    first: int = 0

    def query(self, **changes: object) -> str:
        """Return the query string of the same page with some changes."""
        values = {"words": self.words, "all": int(self.looked_at), "first": self.first, **changes}
        return urlencode({name: value for name, value in values.items() if value})


@dataclass(frozen=True, slots=True)
class InboxPage:
    """The page in one language, under one path prefix. `names` has people's names by their ids."""

    language: str
    root: str
    names: Mapping[str, str]

    def show(
        self,
        shown: InboxFilter,
        votes: Sequence[DownVote],
        total: int,
        alerts: Sequence[Mapping[str, Any]],
    ) -> str:
        """Return the page of some votes, out of `total` that pass the filter."""
        content = (
            f'<nav><a href="{escape(self.root)}/console/">{self._say("back")}</a>'
            f"<code>burnish feedback inbox</code></nav>"
            f"<p>{self._say('about')}</p>{self._search(shown)}"
            f'<p role="status">{self._count(shown, votes, total)}</p>'
            f"{''.join(self._vote(shown, vote) for vote in votes)}"
            f"{self._pages(shown, total)}{self._alerts(shown, alerts)}"
        )
        return framed(self.language, self.root, self._say("title"), content, "inbox")

    def _search(self, shown: InboxFilter) -> str:
        checked = " checked" if shown.looked_at else ""
        return (
            f'<form class="search" method="get" action="{escape(self.root)}{INBOX_PATH}">'
            f'<label>{self._say("search")}<input type="search" name="words"'
            f' value="{escape(shown.words)}" maxlength="200"></label>'
            f'<label class="choice"><input type="checkbox" name="all" value="1"{checked}>'
            f'{self._say("all")}</label><button class="primary">{self._say("find")}</button></form>'
        )

    def _count(self, shown: InboxFilter, votes: Sequence[DownVote], total: int) -> str:
        if not total:
            return self._say("none_found" if shown.words else "none")
        last = shown.first + len(votes)
        return self._say("range", first=shown.first + 1, last=last, total=total)

    def _vote(self, shown: InboxFilter, vote: DownVote) -> str:
        reasons = [say(f"reasons.{reason}", self.language) for reason in vote.reasons]
        marks = "".join(f"<i>{escape(name)}</i>" for name in reasons)
        marks += f"<i>{self._say('has_comment')}</i>" * bool(vote.comment)
        marks += f"<i>{self._say('has_correction')}</i>" * bool(vote.correction)
        who = escape(self._name(vote.user_id))
        when = local_minute(vote.at)
        release = release_name(vote.adapter, self.language)
        does = "put_back" if vote.looked_at else "look_at"
        action = f"{self.root}{INBOX_PATH}/{vote.event_id}/{does}?{shown.query()}"
        state = ' class="looked"' if vote.looked_at else ""
        said = {
            "question": vote.question,
            "answer": vote.answer,
            "comment": vote.comment,
            "correction": vote.correction,
        }
        parts = "".join(
            f"<dt>{self._say(name)}</dt><dd dir='auto'>{escape(text)}</dd>"
            for name, text in said.items()
            if text
        )
        question = escape(one_line(vote.question, LINE_CHARS))
        return (
            f"<details{state}><summary><b dir='auto'>{question}</b>"
            f"<small>{when} · {who} · {escape(release)}</small><span>{marks}</span></summary>"
            f"<dl>{parts}</dl>"
            f"<small>{self._say('ids', answer=vote.answer_id, person=vote.user_id)}</small>"
            f'<form class="inline" method="post" action="{escape(action)}">'
            f"<button>{self._say(does)}</button></form></details>"
        )

    def _pages(self, shown: InboxFilter, total: int) -> str:
        links = []
        if shown.first:
            links.append(("newer", max(0, shown.first - VOTES_A_PAGE)))
        if shown.first + VOTES_A_PAGE < total:
            links.append(("older", shown.first + VOTES_A_PAGE))
        anchors = "".join(
            f'<a href="{escape(f"{self.root}{INBOX_PATH}?{shown.query(first=first)}")}">'
            f"{self._say(name)}</a>"
            for name, first in links
        )
        return f"<nav>{anchors}</nav>" if anchors else ""

    def _alerts(self, shown: InboxFilter, alerts: Sequence[Mapping[str, Any]]) -> str:
        """The alerts, those that nobody has looked at first."""
        ordered = sorted(alerts, key=lambda each: each["looked_at"] is not None)
        items = "".join(self._alert(shown, each) for each in ordered)
        listed = f'<ul class="rows">{items}</ul>' if items else f"<p>{self._say('no_alerts')}</p>"
        title = self._say("alerts")
        return (
            f'<section id="alerts" aria-label="{title}"><h2>{title}</h2>{listed}'
            "<p><code>burnish feedback alerts</code></p></section>"
        )

    def _alert(self, shown: InboxFilter, alert: Mapping[str, Any]) -> str:
        people = ", ".join(self._name(user) for user in alert["users"])
        looked = alert["looked_at"] is not None
        told = f"<small>{self._looked(alert)}</small>" if looked else ""
        does = "put_back" if looked else "look_at"
        action = f"{self.root}{INBOX_PATH}/alerts/{alert['id']}/{does}?{shown.query()}"
        return (
            f"<li{' class=looked' * looked}>"
            f"<span>{escape(translated(alert['explanation'], self.language))}"
            f"<small>{escape(people)}</small>"
            f"<small dir='auto'>{escape(one_line(alert['text'], LINE_CHARS))}</small>{told}</span>"
            f'<form class="inline" method="post" action="{escape(action)}">'
            f"<button>{self._say(does)}</button></form></li>"
        )

    def _looked(self, alert: Mapping[str, Any]) -> str:
        return self._say(
            "looked_by", who=self._name(alert["looked_by"]), when=local_minute(alert["looked_at"])
        )

    def _name(self, user: str) -> str:
        return self.names.get(user, user[:12])

    def _say(self, key: str, **values: object) -> str:
        return escape(say(f"console.inbox.{key}", self.language, **values))
