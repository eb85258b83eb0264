"""Labels of gradio's widgets in the person's language.

The browser fills a label in, by the language of the page's request: `LanguageOfRequest` sets it.
"""

from __future__ import annotations

from contextvars import ContextVar

import gradio as gr
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.texts import DEFAULT, language_for, page_texts, say, whole_key

_current: ContextVar[str | None] = ContextVar("burnish_language", default=None)


class _Labels(gr.I18n):
    """Labels for gradio, whose script chooses by the browser's language alone. Within a
    request every language has the texts of the chosen one, so that the choice applies there too."""

    @property
    def translations_dict(self) -> dict[str, dict[str, str]]:
        """The labels that are sent to the page."""
        language = _current.get()
        known: dict[str, dict[str, str]] = self.translations
        return known if language is None else dict.fromkeys(known, known[language])


I18N = _Labels(**page_texts())


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
    say(key, DEFAULT)
    label: str = I18N(whole_key(key))  # type: ignore[assignment]  # gradio takes its I18nData for a str
    return label
