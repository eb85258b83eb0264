"""The chat page: a gradio page that the scripts in `page` draw on.

Gradio's chat component receives the whole conversation with each token and has no branches, no
addresses and no answers that go on without the page; gr.HTML compiles its templates in the browser,
which the content policy forbids. So the page's scripts call the server (`app.web.chat.api`), and
gradio is only the frame around them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import resources

import gradio as gr
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.html.account_pages import ACCOUNT_SCRIPT
from app.html.queue_page import QUEUE_SCRIPTS
from app.html.rendering import stylesheet
from app.ui.blocks import PageBlocks

FILES = resources.files("app.ui").joinpath("page")
SCRIPTS = tuple(sorted(file.name for file in FILES.iterdir() if file.name.endswith(".js")))
FRAMES = "frames.js"  # on every gradio page, before gradio's own scripts
# Scripts that the chat page does not preload
ELSEWHERE = (FRAMES, *QUEUE_SCRIPTS, ACCOUNT_SCRIPT)
STYLES = (
    "page.css",
    "my_feedback.css",
    "queue.css",
    "sign_in.css",
    "inbox.css",
)  # in this order: the first defines the design tokens
JAVASCRIPT = "text/javascript"
HEAD_START = "".join(
    (
        f'<script src="page/{FRAMES}"></script>',
        *(
            f'<link rel="modulepreload" href="page/{name}">'
            for name in SCRIPTS
            if name not in ELSEWHERE
        ),
        '<script type="module" src="page/main.js"></script>',
    )
)
HEAD_END = '<link rel="stylesheet" href="page/page.css">'  # after gradio's own styles


def build_chat_page() -> gr.Blocks:
    """Return the empty frame; the scripts add the visible content."""
    with PageBlocks(title="Burnish", has_events=False) as blocks:
        pass
    return blocks  # type: ignore[no-any-return]  # gradio types its context manager as Any


def page_css() -> str:
    """Return the style sheet of the page and of the content rendered in it."""
    return "\n".join((*(FILES.joinpath(name).read_text("utf-8") for name in STYLES), stylesheet()))


def page_files() -> list[Route]:
    """Return the routes of scripts and style sheets, which browsers cache and revalidate."""
    return [
        Route("/page/page.css", _cacheable(page_css(), "text/css")),
        *(
            Route(f"/page/{name}", _cacheable(FILES.joinpath(name).read_text("utf-8"), JAVASCRIPT))
            for name in SCRIPTS
        ),
    ]


def _cacheable(text: str, media_type: str) -> Callable[[Request], Response]:
    """Return a handler that sends a text, or 304 if the browser has it (RFC 9110, section 13)."""
    tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}

    def send(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(text, media_type=media_type, headers=headers)

    return send
