"""Where the pages live: the chat at `/`, the console at `/console`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from starlette.responses import RedirectResponse

from app.service import Service
from app.ui.chat import build_chat_page
from app.ui.console import build_console_page
from app.ui.texts import I18N

CSS = "footer {display: none !important}"


def mount_pages(app: Any, service: Service, operator: Callable[..., Any]) -> None:
    """Add both pages to the web application; `operator` decides who may see the console.

    The console first: the chat's path `/` would match everything.
    """
    app.add_route("/console", lambda _request: RedirectResponse("/console/"))
    shared: Any = {"i18n": I18N, "css": CSS, "theme": gr.themes.Soft(), "ssr_mode": False}
    console = build_console_page(service).queue(default_concurrency_limit=8)
    gr.mount_gradio_app(app, console, "/console", auth_dependency=operator, **shared)
    chat_page = build_chat_page(service.chat, service.workspace.store).queue(
        default_concurrency_limit=64
    )
    gr.mount_gradio_app(app, chat_page, "/", **shared)
