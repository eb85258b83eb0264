"""Where the pages live: the chat at `/`, the console at `/console`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from app.service import Service
from app.ui import copying
from app.ui.chat import build_chat_page
from app.ui.console import build_console_page
from app.ui.gradio_routes import AllowedRoutes, BoundSessions
from app.ui.rendering import stylesheet
from app.ui.texts import I18N
from app.web.headers import ScriptNonces

# The chat's windows take what the rows under them leave of the screen
CSS = """
footer {display: none !important}
.window {height: calc(100vh - 240px) !important; min-height: 240px}
.gradio-container:has(#why) .window {height: calc(100vh - 425px) !important}
.gradio-container:has(#compare-panel) .window {height: calc(100vh - 290px) !important}
#compare-panel .icon-button-wrapper {display: none}
.gradio-container:has(#changes) .window {height: calc(100vh - 430px) !important}
#changes {max-height: 150px; overflow-y: auto !important}
#changes * {word-break: normal !important; overflow-wrap: anywhere}
#range {text-align: center; padding-top: 4px}
#facts textarea {font-family: monospace; font-size: 12px}
"""


def mount_pages(app: Any, service: Service, operator: Callable[..., Any]) -> None:
    """Add both pages to the web application; `operator` decides who may see the console.

    The console first: the chat's path `/` would match everything.
    """
    app.add_route(copying.SCRIPT_PATH, lambda _request: FileResponse(copying.SCRIPT_FILE))
    app.add_route("/console", _to_console)
    css = f"{CSS}\n{stylesheet()}"
    shared: Any = {"i18n": I18N, "css": css, "theme": gr.themes.Soft(), "ssr_mode": False}
    console = build_console_page(service).queue(default_concurrency_limit=8)
    gr.mount_gradio_app(
        app, console, "/console", auth_dependency=operator, **shared,
        # Vega compiles the expressions of its plots
        app_kwargs=_middleware(Middleware(ScriptNonces, more="'unsafe-eval'")),
    )  # fmt: skip
    workspace = service.workspace
    chat_page = build_chat_page(
        service.chat, workspace.store, workspace.curation, workspace.settings.max_unfinished
    ).queue(default_concurrency_limit=64)
    gr.mount_gradio_app(app, chat_page, "/", head=copying.HEAD, **shared, app_kwargs=_middleware())


def _middleware(*more: Middleware) -> dict[str, Any]:
    """What stands between the server and one of gradio's applications."""
    return {"middleware": [Middleware(AllowedRoutes), Middleware(BoundSessions), *more]}


def _to_console(request: Request) -> Response:
    """To the console's own path, inside the path prefix of a proxy."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/console/")
