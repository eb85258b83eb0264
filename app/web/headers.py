"""Security headers of every response: the content policy, and no framing by other sites."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Inline styles are allowed: gradio and its plots need them. Images are our own or data URLs
CONTENT_POLICY = {
    "default-src": "'self'",
    "script-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "form-action": "'self'",
    "base-uri": "'none'",
    "object-src": "'none'",
    "frame-ancestors": "'none'",
}
POLICY_HEADER = "Content-Security-Policy"
SCRIPT_TAG = re.compile(rb"<script(?=[\s>])")
# Gradio's `base` is the browser's default anyway; its manifest ignores a path prefix
UNWANTED_TAGS = re.compile(rb'<base href="\./" ?/?>|<link rel="manifest"[^>]*>')


def content_policy(**changes: str) -> str:
    """Return the policy as a header value; `script_src="..."` replaces a directive's sources."""
    sources = CONTENT_POLICY | {name.replace("_", "-"): value for name, value in changes.items()}
    return "; ".join(f"{directive} {value}" for directive, value in sources.items())


class SecurityHeaders:
    """Adds the headers to every response, including errors and mounted applications.

    A response that has a content policy of its own keeps it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault(POLICY_HEADER, content_policy())
                headers["X-Content-Type-Options"] = "nosniff"
                headers["X-Frame-Options"] = "DENY"  # for browsers without frame-ancestors
                headers["Referrer-Policy"] = "no-referrer"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                headers["Cross-Origin-Opener-Policy"] = "same-origin"
                # Browsers look up the hosts of links before a click, which would leak text
                headers["X-DNS-Prefetch-Control"] = "off"
            await send(message)

        await self._app(scope, receive, with_headers)


class ScriptNonces:
    """Allows the inline scripts of a page's own HTML by nonces, and no other inline script.

    `more` are further sources of scripts. `head_start` and `head_end` are HTML for both ends of the
    page's head; gradio's own option would add it only after its scripts have run. Responses that
    are compressed or have a content policy pass unchanged, so that the middleware may be installed
    more than once.
    """

    def __init__(
        self, app: ASGIApp, *, more: str = "", head_start: str = "", head_end: str = ""
    ) -> None:
        self._app = app
        self._more = more
        self._head_start = b"<head>" + head_start.encode()
        self._head_end = head_end.encode() + b"</head>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        start: Message | None = None  # held back until the page is complete
        html = bytearray()

        async def with_nonces(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_plain_page(message):
                start = message
            elif start is None or message["type"] != "http.response.body":
                await send(message)
            else:
                html.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    await self._send_page(start, bytes(html), send)

        await self._app(scope, receive, with_nonces)

    async def _send_page(self, start: Message, html: bytes, send: Send) -> None:
        nonce = secrets.token_urlsafe(16)
        html = UNWANTED_TAGS.sub(b"", html)
        html = html.replace(b"<head>", self._head_start, 1).replace(b"</head>", self._head_end, 1)
        html = SCRIPT_TAG.sub(f'<script nonce="{nonce}"'.encode(), html)
        headers = MutableHeaders(scope=start)
        headers["Content-Length"] = str(len(html))
        headers["Cache-Control"] = "no-store"  # a nonce is valid for one response
        sources = f"'self' 'nonce-{nonce}' {self._more}".strip()
        headers[POLICY_HEADER] = content_policy(script_src=sources)
        await send(start)
        await send({"type": "http.response.body", "body": html})


def _is_plain_page(message: Message) -> bool:
    headers = MutableHeaders(scope=message)
    is_page = headers.get("content-type", "").startswith("text/html")
    return is_page and "content-encoding" not in headers and POLICY_HEADER not in headers
