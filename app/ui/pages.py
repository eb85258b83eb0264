"""Mounts the pages: the chat at `/`, the console at `/console`."""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.html.desk import desk_css
from app.html.rendering import stylesheet
from app.service import Service
from app.ui.chat_page import FRAMES, HEAD_END, HEAD_START, build_chat_page, page_files
from app.ui.console import build_console_page
from app.ui.fact_table import TABLE_CSS
from app.ui.gradio_routes import AllowedRoutes, BoundSessions
from app.ui.labels import I18N, LanguageOfRequest
from app.ui.plan_view import PLAN_CSS
from app.web.headers import ScriptNonces

CSS = """
footer {display: none !important}
#changes {max-height: 150px; overflow-y: auto !important}
#changes * {word-break: normal !important; overflow-wrap: anywhere}
#range {text-align: center; padding-top: 4px}
#facts textarea {font-family: monospace; font-size: 12px}
.progress-text, .min_value, .max_value {color: var(--body-text-color) !important}
#canary-status {overflow: visible !important}
.subdued {color: var(--body-text-color) !important}
"""
# The chat page's accent; gradio's own orange is too light for the words on it
COLORS = {
    "button_primary_background_fill": "#1f5eff",
    "button_primary_background_fill_hover": "#1a4fd6",
    "button_primary_background_fill_dark": "#1f5eff",
    "button_primary_background_fill_hover_dark": "#1a4fd6",
    "button_primary_text_color": "white",
    "button_primary_text_color_dark": "white",
    # The help of a field; gradio's own grey is too light to be read
    "block_info_text_color": "#52525b",
    "block_info_text_color_dark": "#a1a1aa",
}


def mount_pages(app: Any, service: Service) -> None:
    """Add both pages to the web application, whose identity layer decides who may see them.

    The console is mounted first, since the chat's path `/` matches everything.
    """
    app.router.routes.extend(page_files())
    app.add_route("/console", _to_console)
    # System fonts, so that nothing is fetched
    theme = gr.themes.Base(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ).set(**COLORS)
    shared: Any = {"i18n": I18N, "theme": theme, "ssr_mode": False}
    console = build_console_page(service).queue(default_concurrency_limit=8)
    gr.mount_gradio_app(
        app,
        console,
        "/console",
        css="\n".join((CSS, TABLE_CSS, PLAN_CSS, stylesheet(), desk_css())),
        **shared,
        app_kwargs=_middleware(
            # Vega, the plot library, compiles expressions
            more="'unsafe-eval'",
            head_start=f'<script src="../page/{FRAMES}"></script>',
        ),
    )
    gr.mount_gradio_app(
        app,
        build_chat_page(),
        "/",
        css="footer {display: none !important}",
        **shared,
        app_kwargs=_middleware(head_start=HEAD_START, head_end=HEAD_END),
    )


def _middleware(**html: str) -> dict[str, Any]:
    """Return the middleware of one gradio application; `html` are arguments of `ScriptNonces`."""
    ours = (AllowedRoutes, BoundSessions, LanguageOfRequest)
    nonces = Middleware(ScriptNonces, **html)
    return {"middleware": [*(Middleware(each) for each in ours), nonces]}


def _to_console(request: Request) -> Response:
    """Redirect to the console's path, within the path prefix of a proxy."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/console/")
