"""Variables of libraries that would send prompts away: none of them has an effect."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import FOREIGN_PREFIXES
from engine.models.catalogue import BaseModel

pytestmark = pytest.mark.integration

# Asks in each mode through the whole server's own parts, in a process that reports every connection
PROGRAM = """
import os, sys
strangers = []
def watch(event, arguments):
    if event == "socket.connect" and arguments[1] and not isinstance(arguments[1], (str, bytes)):
        strangers.append(str(arguments[1]))
    if event == "socket.getaddrinfo":
        strangers.append(str(arguments[:2]))
sys.addaudithook(watch)
from app.settings import load_settings
settings = load_settings()
from app.answering.answer_options import AnswerOptions
from app.serve import make_app
from app.service import Service
from app.workspace import Workspace
service = Service(Workspace(settings))
service.start()
make_app(service)
for mode in ("plain", "few-shot", "cot", "self-consistency"):
    options = AnswerOptions(mode)
    list(service.chat.ask("person", "A secret question?", options, conversation_id="c" + mode))
service.close()
import json, gradio.analytics
print(json.dumps({"strangers": strangers, "left": sorted(
    name for name in os.environ if name.startswith(("LANG", "OTEL", "WANDB", "GRADIO_")))}))
"""


@pytest.fixture
def trap() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server that keeps what is sent to it."""
    caught: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def take() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            caught.append(connection.recv(4096))
            connection.close()

    threading.Thread(target=take, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", caught
    server.close()


def test_no_variable_of_a_library_makes_it_connect(
    trap: tuple[str, list[bytes]], tmp_path: Path, tiny_base: BaseModel
) -> None:
    address, caught = trap
    variables = {
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_TRACING_V2": "true",
        "LANGCHAIN_TRACING": "true",
        "LANGCHAIN_TRACING_V2": "true",
        "LANGSMITH_API_KEY": "key",
        "LANGCHAIN_API_KEY": "key",
        "LANGSMITH_ENDPOINT": address,
        "LANGCHAIN_ENDPOINT": address,
        "LANGSMITH_OTEL_ENABLED": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
        "OTEL_TRACES_EXPORTER": "otlp",
        "WANDB_MODE": "online",
        "WANDB_BASE_URL": address,
        "GRADIO_ANALYTICS_ENABLED": "True",
        "GRADIO_SHARE": "True",
        "GRADIO_MCP_SERVER": "True",
        "GRADIO_SSR_MODE": "True",
        "GRADIO_ALLOWED_PATHS": "/",
        "GRADIO_RUN_HISTORY": "True",
        "GRADIO_VIBE_MODE": "1",
        "GRADIO_LOCAL_DEV_MODE": "1",
        "GRADIO_ROOT_PATH": "/elsewhere",
        "HF_HUB_DISABLE_TELEMETRY": "0",
        "DO_NOT_TRACK": "0",
        "HF_ENDPOINT": address,
        "HTTP_PROXY": address,
        "HTTPS_PROXY": address,
    }
    ours = {
        "BURNISH_HOME": str(tmp_path / "home"),
        "BURNISH_MODEL": str(tiny_base.folder),
        "BURNISH_MODEL_CACHE": str(tmp_path / "models"),
        "BURNISH_MAX_NEW_TOKENS": "4",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **variables, **ours},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["strangers"] == []
    assert caught == []
    allowed = {"GRADIO_ANALYTICS_ENABLED", "LANGCHAIN_TRACING_V2", "LANGSMITH_TRACING"}
    left = {name for name in found["left"] if name.startswith(FOREIGN_PREFIXES)}
    assert left <= allowed | {"GRADIO_TEMP_DIR"}
