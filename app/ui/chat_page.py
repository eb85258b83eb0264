"""The chat page: a gradio page that the scripts in `page` draw on.

A gradio chat window gets its whole conversation with each token and knows no branches, addresses or
answers that go on without it; and gr.HTML compiles its templates in the browser, which the content
policy forbids. So the page asks the server itself (`app.web.chat_api`), and gradio is the frame
that it stands in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import resources

import gradio as gr
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.ui.blocks import PageBlocks
from app.ui.rendering import stylesheet

FILES = resources.files("app.ui").joinpath("page")
SCRIPTS = tuple(sorted(file.name for file in FILES.iterdir() if file.name.endswith(".js")))
FRAMES = "frames.js"  # for every gradio page, before gradio's own scripts
STYLES = ("page.css", "my_feedback.css")  # in this order: the first has the tokens
JAVASCRIPT = "text/javascript"
HEAD_START = "".join(
    (
        f'<script src="page/{FRAMES}"></script>',
        *(f'<link rel="modulepreload" href="page/{name}">' for name in SCRIPTS if name != FRAMES),
        '<script type="module" src="page/main.js"></script>',
    )
)
HEAD_END = '<link rel="stylesheet" href="page/page.css">'  # over gradio's own


def build_chat_page() -> gr.Blocks:
    """The frame, empty: the scripts add what is seen."""
    with PageBlocks(title="Burnish", has_events=False) as blocks:
        pass
    return blocks  # type: ignore[no-any-return]  # gradio types its context manager as Any


def page_css() -> str:
    """The page's look, and that of what is rendered in it."""
    return "\n".join((*(FILES.joinpath(name).read_text("utf-8") for name in STYLES), stylesheet()))


def page_files() -> list[Route]:
    """Scripts and style sheet, which a browser keeps and asks about again."""
    return [
        Route("/page/page.css", _cacheable(page_css(), "text/css")),
        *(
            Route(f"/page/{name}", _cacheable(FILES.joinpath(name).read_text("utf-8"), JAVASCRIPT))
            for name in SCRIPTS
        ),
    ]


def _cacheable(text: str, media_type: str) -> Callable[[Request], Response]:
    """A handler that sends a text, unless the browser has it already (RFC 9110, section 13)."""
    tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}

    def send(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(text, media_type=media_type, headers=headers)

    return send
