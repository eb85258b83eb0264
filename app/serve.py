"""The server process: open everything, say when the first answer can be given, close politely."""

from __future__ import annotations

import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import uvicorn

from app.service import Service, Workspace
from app.settings import Settings
from app.ui.pages import mount_pages
from app.web.operator import operator_check
from app.web.server import build_app
from app.web.timed_protocol import TimedProtocol
from engine.messages import Message
from engine.request import GenerationRequest, SamplingParams, collect

GRACE_SECONDS = 20  # running answers may finish; then they are ended politely


def make_app(service: Service) -> Any:
    """The web application with its pages."""
    check = operator_check(service.workspace.settings)
    return build_app(service, lambda app: mount_pages(app, service, check))


def serve(settings: Settings, announce: Callable[[str], None]) -> int:
    """Run until told to stop; `announce` gets the address once an answer can be given."""
    service = Service(Workspace(settings))
    try:
        service.start()
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(service), host=settings.host, port=settings.port, log_level="warning",
                timeout_graceful_shutdown=GRACE_SECONDS, http=TimedProtocol, ws="none",
                root_path=settings.path_prefix,
            )
        )  # fmt: skip
        threading.Thread(
            target=_announce_when_ready, args=(server, service, announce), daemon=True
        ).start()
        server.run()
    finally:
        service.close()
    return 0


def _announce_when_ready(
    server: uvicorn.Server, service: Service, announce: Callable[[str], None]
) -> None:
    """Make one token and fetch the page, so that "ready" is true."""
    warm_up = GenerationRequest((Message("user", "Hi"),), SamplingParams(max_new_tokens=1))
    collect(service.engine.submit(warm_up))
    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    host = "127.0.0.1" if server.config.host == "0.0.0.0" else server.config.host  # noqa: S104
    address = f"http://{host}:{port}"
    try:
        urllib.request.urlopen(f"{address}/readyz", timeout=10).read()  # noqa: S310 - our own server
    except urllib.error.URLError as error:
        print(f"the server does not answer: {error}", file=sys.stderr)  # noqa: T201
        return
    announce(address)
