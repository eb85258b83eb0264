"""The HTTP API's share of the first token's time: `python -m benchmarks.api_overhead --json`.

Eight clients in a process of their own ask `/v1/chat/completions` at once, again and again, and
stream the answers. The overhead of one answer is the time from its request to its first word, less
the time in which the engine made it: from `submit_many` to the first text that the engine's thread
put into the stream. Clocks of two processes are never compared. The server shares its process with
the engine, as `burnish serve` does, and stores every turn.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from platformdirs import user_cache_path

from app.claims import listen
from app.serve import Server
from app.service import Service
from app.settings import load_settings
from app.web.headers import SecurityHeaders
from app.web.server import build_app
from app.workspace import Workspace
from engine.hardware import processor_name
from engine.request import GenerationRequest, TextDelta
from engine.serving.stream import QueuedStream

NEW_TOKENS = 16
WANTED_P95_SECONDS = 0.010
WARM_ROUNDS = 2
CLIENT = "from benchmarks.api_overhead import ask; ask()"


def main() -> None:
    """Print the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the document on one line")
    parser.add_argument("--rounds", type=int, default=25, help="of so many answers each")
    parser.add_argument("--streams", type=int, default=8, help="answers at once")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings(
            home=Path(home), model=arguments.model, model_cache=arguments.model_cache, port=0
        )
        with served(Service(Workspace(settings))) as (port, engine_seconds):
            asked = _in_another_process(port, arguments.rounds + WARM_ROUNDS, arguments.streams)
    warm = WARM_ROUNDS * arguments.streams
    measured = {seed: s for seed, s in asked.items() if seed >= warm}
    overhead = [seconds - engine_seconds[seed] for seed, seconds in measured.items()]
    document = {
        "figures": {
            "first_token_overhead_p95_seconds": {
                "asked": f"< {WANTED_P95_SECONDS}",
                "reached": round(float(np.quantile(overhead, 0.95)), 5),
                "met": bool(np.quantile(overhead, 0.95) < WANTED_P95_SECONDS),
                "p50": round(float(np.median(overhead)), 5),
                "max": round(max(overhead), 5),
                "engine_p50": round(float(np.median([engine_seconds[s] for s in measured])), 5),
                "streams": arguments.streams,
                "answers": len(overhead),
            }
        },
        "processor": processor_name(),
        "processors": psutil.cpu_count(),
        "load_average": round(psutil.getloadavg()[0], 2),
    }
    print(json.dumps(document) if arguments.json else json.dumps(document, indent=2))


@contextmanager
def served(service: Service) -> Iterator[tuple[int, dict[int, float]]]:
    """A server of the API alone: its port, and the engine's seconds of each answer by its seed."""
    seconds = timed_engine(service)
    service.start()
    app = SecurityHeaders(build_app(service, lambda _app: None))
    server = Server(app, service.chat.running, service.workspace.settings)
    (listener,) = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield listener.getsockname()[1], seconds
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        service.close()


def timed_engine(service: Service) -> dict[int, float]:
    """Note how long the engine takes to the first text of each answer, by the answer's seed."""
    submit_many, put = service.engine.submit_many, QueuedStream.put
    begun: dict[int, tuple[int, float]] = {}  # by the stream's identity: seed, moment
    seconds: dict[int, float] = {}

    def timed_submit(requests: Sequence[GenerationRequest]) -> Sequence[Any]:
        at = time.perf_counter()
        streams = submit_many(requests)
        for request, stream in zip(requests, streams, strict=True):
            begun[id(stream)] = request.sampling.seed, at
        return streams

    def timed_put(stream: QueuedStream, event: Any) -> None:
        if isinstance(event, TextDelta) and not hasattr(stream, "began_at"):
            stream.began_at = time.perf_counter()  # type: ignore[attr-defined]
        put(stream, event)
        if id(stream) in begun and hasattr(stream, "began_at"):
            seed, at = begun.pop(id(stream))
            seconds[seed] = stream.began_at - at

    QueuedStream.put = timed_put  # type: ignore[method-assign, assignment]
    service.engine.submit_many = timed_submit  # type: ignore[method-assign]
    return seconds


def _in_another_process(port: int, rounds: int, streams: int) -> dict[int, float]:
    command = [sys.executable, "-c", CLIENT, *map(str, (port, rounds, streams))]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {int(seed): seconds for seed, seconds in json.loads(told).items()}


def ask() -> None:
    """Ask as several clients; prints the seconds to the first word of each answer by its seed.

    One thread holds all connections. Threads of their own would wait for each other's Python, and
    that would count as the server's time.
    """
    port, rounds, streams = map(int, sys.argv[1:])
    seconds: dict[int, float] = {}
    with selectors.DefaultSelector() as selector:
        clients = [Client(port) for _ in range(streams)]
        for client in clients:
            selector.register(client.connection, selectors.EVENT_READ, client)
        for turn in range(rounds):
            for number, client in enumerate(clients):
                client.ask(turn * streams + number)
            while not all(client.has_ended for client in clients):
                for key, _ in selector.select():
                    key.data.read()
            for client in clients:
                seconds[client.seed] = client.first_word_seconds
                assert client.first_word_seconds > 0, "an answer has no words"
    print(json.dumps(seconds))


class Client:
    """A connection on which one answer after the other is streamed."""

    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, seed: int) -> None:
        """Send the request for an answer."""
        question = f"Tell me a story about ship number {seed} and its {seed % 7} sailors."
        body = json.dumps(
            {
                "model": "base",
                "messages": [{"role": "user", "content": question}],
                "stream": True,
                "max_tokens": NEW_TOKENS,
                "ignore_eos": True,
                "seed": seed,
            }
        ).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.seed, self.first_word_seconds, self.received = seed, 0.0, b""
        self._begun = time.perf_counter()
        self.connection.sendall(head.encode() + body)

    def read(self) -> None:
        """Read what has come of the answer; notes when its first word is there."""
        some = self.connection.recv(1 << 16)
        now = time.perf_counter()
        assert some, "the server closed the connection"
        self.received += some
        if not self.first_word_seconds and any(map(_has_a_word, self.received.split(b"\n"))):
            self.first_word_seconds = now - self._begun

    @property
    def has_ended(self) -> bool:
        """Return whether the answer's last chunk was received."""
        return self.received.endswith(b"\r\n0\r\n\r\n")


def _has_a_word(line: bytes) -> bool:
    """Return whether a line of the stream is a whole event with text."""
    if not (line.startswith(b"data: {") and line.endswith(b"}")):
        return False
    choices = json.loads(line.removeprefix(b"data: "))["choices"]
    return bool(choices and choices[0]["delta"].get("content"))


if __name__ == "__main__":
    main()
