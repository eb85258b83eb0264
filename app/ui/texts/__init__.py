"""The texts of the pages, in the person's language.

Each `*.yaml` beside this file is a language. A gradio label takes `text`, which the browser
fills in; what the server makes itself takes `say` and the language of the request. A person's
language is the chosen one, kept in a cookie, else the browser's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from importlib import resources
from typing import Protocol

import gradio as gr
from starlette.requests import Request, cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from app.ui.texts.languages import COOKIE, DEFAULT, LOWER_FLOOR_AREAS, read_texts
from engine.errors import BurnishError

__all__ = [
    "COOKIE",
    "DEFAULT",
    "I18N",
    "LANGUAGES",
    "LanguageOfRequest",
    "catalogue",
    "error_text",
    "language_for",
    "language_of",
    "say",
    "text",
    "toast",
    "translated",
]
_TEXTS = read_texts(resources.files(__name__))
LANGUAGES = {name: _TEXTS.say("common.language_name", name) for name in _TEXTS.languages}
_current: ContextVar[str | None] = ContextVar("burnish_language", default=None)


class HasHeaders(Protocol):
    """A request of gradio's or of starlette's."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers, by name in lower case."""


class _Labels(gr.I18n):
    """Labels for gradio, whose script chooses by the browser's language alone. Within a
    request every language has the texts of the chosen one, so that the choice applies there too."""

    @property
    def translations_dict(self) -> dict[str, dict[str, str]]:
        """The labels that are sent to the page."""
        language = _current.get()
        known: dict[str, dict[str, str]] = self.translations
        return known if language is None else dict.fromkeys(known, known[language])


I18N = _Labels(
    **{
        language: {k: said for k, said in texts.items() if not k.startswith(LOWER_FLOOR_AREAS)}
        for language, texts in _TEXTS.languages.items()
    }
)


class LanguageOfRequest:
    """ASGI middleware around gradio that sets the language of a page's labels."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        before = _current.set(language_for(Request(scope)))
        try:
            await self._app(scope, receive, send)
        finally:
            _current.reset(before)


def text(key: str) -> str:
    """Return a gradio label in the person's language; the key must be known."""
    key = _whole(key)
    _TEXTS.say(key, DEFAULT)
    label: str = I18N(key)  # type: ignore[assignment]  # gradio takes its I18nData wherever a str
    return label


def say(key: str, language: str, **values: object) -> str:
    """Return a text in a language, its placeholders filled with `values`; the key must be known."""
    return _TEXTS.say(_whole(key), language, **values)


def catalogue(language: str, area: str) -> dict[str, str]:
    """Return the texts of an area by their keys within it, for a page's script."""
    return _TEXTS.catalogue(language, area)


def language_of(accept_language: str | None, cookie: str | None = None) -> str:
    """Return a person's language, from the Accept-Language header and the cookie `COOKIE`."""
    return _TEXTS.language_of(accept_language, cookie)


def language_for(request: HasHeaders) -> str:
    """Return the language of the person behind a request."""
    cookies = cookie_parser(request.headers.get("cookie", ""))
    return language_of(request.headers.get("accept-language"), cookies.get(COOKIE))


def translated(sentence: str, language: str) -> str:
    """Translate a sentence of a lower floor (a state, a verdict); unchanged if it is unknown."""
    return _TEXTS.translated(sentence, language) or sentence


def error_text(error: BurnishError, language: str) -> str:
    """Translate an error's sentence; an unknown one is quoted in English, marked as an error."""
    sentence = str(error)
    found = _TEXTS.translated(sentence, language)
    return found or _TEXTS.say("common.error", language, sentence=sentence)


def toast(key: str, request: HasHeaders) -> str:
    """Return a toast's text in the language of a request."""
    return say(key, language_for(request))


def _whole(key: str) -> str:
    """Return a key with its area, which the chat page omits."""
    if "." in key:
        return key
    return f"reasons.{key.removeprefix('reason_')}" if key.startswith("reason_") else f"chat.{key}"
