"""The server process: startup, the readiness announcement and graceful shutdown.

The first SIGTERM or SIGINT lets running answers finish until a deadline and refuses new ones. At
the deadline, or at the second signal, answers that still run are stopped and stored. Then every
open connection is closed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import uvicorn

from app.account_links import first_operator_link
from app.answering.running_answers import RunningAnswers
from app.error_log import HideExceptionMessages, install_thread_excepthook
from app.service import Service
from app.settings import Settings
from app.web.streaming.timed_protocol import TimedProtocol
from app.workspace import BUNDLE_ID, Workspace
from engine.messages import Message
from engine.request import GenerationRequest, SamplingParams, collect

_uvicorn_log = logging.getLogger("uvicorn.error")
STOP_SECONDS = 1.0  # a stopped answer is stored within a step, unless the engine hangs
FLUSH_SECONDS = 0.5  # to send the end of each answer; then connections are cut
CLOSE_SECONDS = 2  # for the handlers of connections that were cut
# Receives the server's address and, until there is an operator, the link for the first one
Announce = Callable[[str, str | None], None]


def make_app(service: Service) -> Any:
    """Return the web application with its pages; imports gradio, fastapi and pandas."""
    from app.ui.pages import mount_pages
    from app.web.chat.comparisons_api import comparisons_router
    from app.web.chat.drafts_api import drafts_router
    from app.web.chat.inbox_api import inbox_router
    from app.web.evaluation_page import evaluations_router
    from app.web.headers import SecurityHeaders
    from app.web.server import build_app

    def mount(app: Any) -> None:
        app.include_router(comparisons_router(service))
        app.include_router(drafts_router(service))
        app.include_router(inbox_router(service.workspace))
        app.include_router(evaluations_router(service.workspace))
        mount_pages(app, service)

    app = build_app(service, mount)
    return SecurityHeaders(app)  # outermost, around Starlette's response to an unexpected error too


def run_server(settings: Settings, sockets: Sequence[socket.socket], announce: Announce) -> None:
    """Run until told to stop; `announce` is called once the server is ready."""
    install_thread_excepthook()
    service = _load_service(settings)
    try:
        service.start()
        server = Server(make_app(service), service.chat.running, settings)
        address = _address(settings, sockets[0])
        threading.Thread(
            target=_announce_when_ready, args=(server, service, address, announce), daemon=True
        ).start()
        server.run(sockets=list(sockets))
    finally:
        service.close()
        gc.freeze()  # else the last collection at exit scans all imported modules


def _load_service(settings: Settings) -> Service:
    """Read the weights in a thread, while the libraries of the pages are imported here.

    The engine's own imports come first, so that no two threads import one package.
    """
    import engine.fast  # noqa: F401
    from engine.preparation import prepare_apart

    def load() -> Service:
        if not settings.model.startswith(BUNDLE_ID):
            prepare_apart(settings.model, settings.model_cache)
        return Service(Workspace(settings))

    with ThreadPoolExecutor(1, "burnish-load") as pool:
        loading = pool.submit(load)
        import app.ui.pages
        import app.web.server  # noqa: F401

        return loading.result()


class Server(uvicorn.Server):
    """uvicorn's server with this module's graceful shutdown."""

    def __init__(self, app: Any, running: RunningAnswers, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                timeout_graceful_shutdown=CLOSE_SECONDS,
                http=TimedProtocol,
                ws="none",
                root_path=settings.path_prefix,
                proxy_headers=False,  # any client may send such headers
            )
        )
        _uvicorn_log.addFilter(HideExceptionMessages())
        self._running = running
        self._grace_seconds = settings.shutdown_grace_seconds
        self._deadline: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Set the deadline for running answers; on the second signal, move it to now."""
        now = time.monotonic()
        self._deadline = now if self._deadline is not None else now + self._grace_seconds

    async def on_tick(self, counter: int) -> bool:
        """Return whether to shut down now; uvicorn calls this ten times a second."""
        should_exit = await super().on_tick(counter)
        if self._deadline is None:
            return should_exit
        self._running.refuse_more()
        late_by = time.monotonic() - self._deadline
        if late_by >= 0:
            self._running.stop_all()
        return self._running.count == 0 or late_by > STOP_SECONDS

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything; connections that stay open after the flush are aborted."""
        _uvicorn_log.setLevel(logging.CRITICAL)  # uvicorn logs cut connections as errors
        cut = asyncio.create_task(self._cut_off())
        await super().shutdown(sockets)
        cut.cancel()

    async def _cut_off(self) -> None:
        """Abort the connections that are still open, such as the event streams of open pages."""
        await asyncio.sleep(FLUSH_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _announce_when_ready(
    server: Server, service: Service, address: str, announce: Announce
) -> None:
    """Generate one token and request `/readyz`, then announce the address and the link."""
    warm_up = GenerationRequest((Message("user", "Hi"),), SamplingParams(max_new_tokens=1))
    collect(service.engine.submit(warm_up))
    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.02)
    try:
        urllib.request.urlopen(f"{address}/readyz", timeout=10).read()  # noqa: S310 - our own server
    except urllib.error.URLError as error:
        print(f"the server does not answer: {error}", file=sys.stderr)  # noqa: T201
        return
    workspace = service.workspace
    announce(address, first_operator_link(workspace.accounts, workspace.settings, address))
    _prepare_first_question()


def _prepare_first_question() -> None:
    """Import what the first question needs and the start does not: langchain's prompts, scipy."""
    import engine.prompts.similarity  # noqa: F401
    from engine.prompts.modes import make_template

    make_template("plain", ()).build((), "Hi")


def _address(settings: Settings, listener: socket.socket) -> str:
    """Return the server's address for a browser on this machine."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    host = everywhere.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
