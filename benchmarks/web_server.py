"""The server of `benchmarks.web`: started, called by HTTP and observed from outside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from engine.home import Home
from feedback_store.storage.database import Database, database_url
from feedback_store.storage.store import FeedbackStore

STARTS_WITHIN_SECONDS = 120
ANSWER_TOKENS = 200
COMMAND = "from app.cli import main; main()"


@dataclass(frozen=True, slots=True)
class WebServer:
    """A running server with a second handle to its store."""

    url: str
    process: psutil.Process
    store: FeedbackStore
    database: Database

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of a query."""
        with self.database.read() as connection:
            return list(connection.exec_driver_sql(query, values))

    def newest_user(self) -> str:
        """Return the user of the newest turn; a browser's signed cookie does not tell its user."""
        return str(self.rows("SELECT user_id FROM turns ORDER BY created_at DESC LIMIT 1")[0][0])

    def cpu_seconds(self) -> float:
        """Return the processor time of the process and its ended children, in seconds."""
        times = self.process.cpu_times()
        return float(sum(times[:4]))


@contextmanager
def running_server(home: Path, model: str, model_cache: Path) -> Iterator[WebServer]:
    """Run a server on its own home: greedy answers of at most 200 tokens, no random offers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "BURNISH_HOME": str(home),
        "BURNISH_MODEL": model,
        "BURNISH_MODEL_CACHE": str(model_cache),
        "BURNISH_TEMPERATURE": "0",
        "BURNISH_MAX_NEW_TOKENS": str(ANSWER_TOKENS),
        "BURNISH_COMPARE_RATE": "0",
    }
    started = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "serve", "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, started)
        database = Database(database_url(Home(home), None))
        yield WebServer(url, psutil.Process(started.pid), FeedbackStore(database), database)
        database.close()
    finally:
        started.terminate()
        started.wait()


def _wait_until_ready(url: str, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < deadline and started.poll() is None:
        try:
            if httpx.get(f"{url}/healthz").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit("the server did not start")


def stream_v1(client: httpx.Client, messages: list[dict[str, str]]) -> float:
    """Return the seconds of one answer by `/v1/chat/completions`, streamed to its end."""
    body = {"messages": messages, "stream": True, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    begun = time.perf_counter()
    with client.stream("POST", "/v1/chat/completions", json=body, timeout=300) as response:
        response.raise_for_status()
        for _ in response.iter_lines():
            pass
    return time.perf_counter() - begun


def stream_chat(
    client: httpx.Client, question: str, *, leave: bool = False, **sampling: Any
) -> str:
    """Ask as the page does; returns the answer's id. With `leave`, disconnect after one event."""
    body = {"question": question, "sampling": sampling}
    answer_id = ""
    with client.stream("POST", "/chat/questions", json=body, timeout=300) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line.startswith('data: {"live"'):
                answer_id = json.loads(line.removeprefix("data: "))["live"]
                if leave:
                    break
    return answer_id
