"""The server as a process: alone on its home and port, and polite when it is told to stop."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pysqlite3.dbapi2 as sqlite3
import pytest

from app.claims import claim_server, listen
from app.serve import Server, make_app
from app.service import Service
from app.settings import load_settings
from engine.models.catalogue import BaseModel
from tests.support.scripted_engine import ScriptedEngine
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

CHAT = "/v1/chat/completions"
BROWSER = {"accept": "text/html"}
ENDLESS = 1_000_000


class Burnish:
    """`burnish serve` in a process of its own, over a scripted engine."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.app.serving_child",
                "0.01",
                "serve",
                "--home",
                str(home),
                "--port",
                "0",
            ],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("Starting")
        ready = self.process.stdout.readline()
        assert ready.startswith("Burnish is ready: "), self.process.communicate()[1]
        self.url = ready.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def statuses(self) -> list[str]:
        """Of each stored answer, read as another program would."""
        with closing(sqlite3.connect(self.home / "burnish.db")) as connection:
            return [row[0] for row in connection.execute("SELECT status FROM answers ORDER BY 1")]

    def ended(self) -> tuple[int, str]:
        """Exit status, and what it said on standard error."""
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def stream(url: str, words: int) -> list[str]:
    """All events of a streamed answer of so many words."""
    body = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": words}
    with httpx.stream("POST", url + CHAT, json={**body, "stream": True}, timeout=60) as response:
        assert response.status_code == 200
        return [line.removeprefix("data: ") for line in response.iter_lines() if line]


@pytest.fixture
def environment(tmp_path: Path, tiny_base: BaseModel) -> dict[str, str]:
    return {
        "BURNISH_MODEL": str(tiny_base.folder),
        "BURNISH_MODEL_CACHE": str(tmp_path / "models"),
        "BURNISH_SHUTDOWN_GRACE_SECONDS": "3",
    }


@pytest.fixture
def server(tmp_path: Path, environment: dict[str, str]) -> Iterator[Burnish]:
    server = Burnish(tmp_path / "home", environment)
    yield server
    server.process.kill()
    server.process.wait()


def refused(environment: dict[str, str], *arguments: str) -> tuple[float, str]:
    """Seconds of processor time until a command ended with status 1, and its one sentence."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (sentence,) = done.stderr.splitlines()
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, sentence


def ending(events: list[str]) -> tuple[str, str]:
    """The last choice's reason to end, and the event after it."""
    return json.loads(events[-2])["choices"][0]["finish_reason"], events[-1]


def words_of(events: list[str]) -> int:
    choices = [json.loads(event)["choices"][0] for event in events[:-1]]
    return len("".join(choice["delta"].get("content", "") for choice in choices).split())


def hold_page_open(url: str, opened: threading.Event) -> None:
    """What a browser's open tab does: it listens for as long as it is open."""
    with httpx.Client(base_url=url, timeout=60) as browser:
        browser.get("/", headers=BROWSER)
        with browser.stream("GET", "/gradio_api/heartbeat/tab-1") as response:
            try:
                for _ in response.iter_raw():
                    opened.set()
            except httpx.TransportError:
                pass


def test_the_connections_of_a_server_send_each_word_at_once() -> None:
    (listener,) = listen("127.0.0.1", 0)
    with listener, closing(socket.create_connection(listener.getsockname())):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_second_server_is_refused_at_once_and_touches_nothing(
    server: Burnish, environment: dict[str, str], tmp_path: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        streamed = pool.submit(stream, server.url, 700)
        wait_until(lambda: server.statuses() == ["streaming"])
        for arguments, said in (
            (["--home", str(server.home), "--port", "0"], f"process {server.process.pid}"),
            (["--home", str(tmp_path / "other"), "--port", str(server.port)], "is in use"),
        ):
            took, sentence = refused(environment, "serve", *arguments)
            assert said in sentence
            assert took < 3  # the server's imports alone take 6
        assert server.statuses() == ["streaming"]
        assert words_of(streamed.result()) == 700
    assert not (tmp_path / "other" / "burnish.db").exists()
    server.process.kill()
    server.process.wait()
    with claim_server(load_settings(home=server.home, port=server.port)):
        """Neither lock nor port outlives its process."""


def test_running_answers_finish_or_get_their_end_before_the_server_is_gone(server: Burnish) -> None:
    opened = threading.Event()
    page = threading.Thread(target=hold_page_open, args=(server.url, opened))
    page.start()
    assert opened.wait(30)
    with ThreadPoolExecutor() as pool, httpx.Client(base_url=server.url, timeout=60) as client:
        short, endless = (pool.submit(stream, server.url, words) for words in (150, ENDLESS))
        wait_until(lambda: server.statuses() == ["streaming"] * 2)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/readyz").status_code == 503)
        body = {"messages": [{"role": "user", "content": "One more?"}]}
        response = client.post(CHAT, json=body)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["error"]["type"] == "ShuttingDown"
        assert client.get("/healthz").status_code == 200
        assert ending(short.result()) == ("length", "[DONE]")
        assert words_of(short.result()) == 150
        assert ending(endless.result()) == ("stop", "[DONE]")
        assert 3 <= time.monotonic() - begun < 3 + 4  # 0.1 late where nothing else runs
        assert server.ended() == (0, "")
    page.join(30)
    assert server.statuses() == ["done", "stopped"]


class TestSignals:
    """The same in this process."""

    @pytest.fixture
    def scripted_engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "engine.start.start_engine", lambda *_, **__: ScriptedEngine(token_seconds=0.01)
        )

    @pytest.fixture
    def running(self, scripted_engine: None, service: Service) -> Iterator[Server]:
        patient = service.workspace.settings.model_copy(update={"shutdown_grace_seconds": 600})
        server = Server(make_app(service), service.chat.running, patient)
        (listener,) = listen("127.0.0.1", 0)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        wait_until(lambda: server.started)
        yield server
        server.should_exit = True
        thread.join()

    def test_a_second_one_ends_the_running_answers_at_once(
        self, running: Server, service: Service
    ) -> None:
        with ThreadPoolExecutor() as pool:
            endless = pool.submit(stream, address_of(running), ENDLESS)
            wait_until(lambda: service.chat.running.count == 1)
            running.handle_exit(signal.SIGTERM, None)
            wait_until(lambda: service.chat.running.refusing)
            assert service.chat.running.count == 1
            running.handle_exit(signal.SIGINT, None)
            assert ending(endless.result(timeout=10)) == ("stop", "[DONE]")
        assert service.workspace.store.abort_unfinished() == 0

    def test_a_server_without_answers_ends_at_once(self, running: Server) -> None:
        address, begun = address_of(running), time.monotonic()
        running.handle_exit(signal.SIGTERM, None)
        with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
            while time.monotonic() < begun + 10:
                httpx.get(address + "/healthz")


def address_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
