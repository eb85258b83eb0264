"""Tools of real MCP servers, in processes of their own: listed, called, hung and killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.mcp_config import McpServerConfig
from app.tools.mcp_servers import McpServers
from app.tools.mcp_session import McpSession
from engine.errors import InvalidInput, PeerUnavailable
from tests.support.waiting import wait_until

pytest.importorskip("mcp", reason="needs the package mcp: pip install burnish[mcp]")
pytestmark = pytest.mark.integration

SERVER = str(Path(__file__).parents[2] / "support" / "mcp_server.py")
SECONDS = 60.0  # a process starts slowly on a busy machine


def stdio(**more: object) -> McpServerConfig:
    env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "KEY": "opened"}
    return McpServerConfig.model_validate(
        {"command": sys.executable, "args": [SERVER], "env": env, **more}
    )


@pytest.fixture
def session() -> Iterator[McpSession]:
    session = McpSession("test", stdio(), timeout_seconds=SECONDS)
    yield session
    session.close()


def pid_of(session: McpSession) -> int:
    return int(session.call("process", {}).split()[0])


def test_tools_are_listed_and_called_over_stdio(
    session: McpSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURNISH_SECRET", "kept")
    assert [tool.name for tool in session.tools()] == ["add", "process", "refuse", "hang", "die"]
    assert session.call("add", {"a": 20, "b": 22}) == "42"
    pid, key, secret = session.call("process", {}).split()
    assert (key, secret) == ("opened", "None")  # its own variables, and none of Burnish's
    with pytest.raises(InvalidInput, match="refuse"):
        session.call("refuse", {})
    with pytest.raises(InvalidInput):
        session.call("add", {"a": "many"})
    assert pid_of(session) == int(pid)
    session.close()
    wait_until(lambda: not psutil.pid_exists(int(pid)))


def test_a_server_that_dies_ends_the_call_and_is_started_again(session: McpSession) -> None:
    first = pid_of(session)
    with pytest.raises(PeerUnavailable, match="the MCP server test answered with an error"):
        session.call("die", {})
    assert pid_of(session) != first
    psutil.Process(pid_of(session)).kill()  # between two calls
    with pytest.raises(PeerUnavailable):
        for _ in range(100):
            session.call("add", {"a": 1, "b": 1})
            time.sleep(0.05)
    assert session.call("add", {"a": 1, "b": 1}) == "2"


def test_a_server_that_hangs_ends_the_call_at_its_limit(session: McpSession) -> None:
    pid = pid_of(session)
    session._timeout_seconds = 1.0
    begun = time.monotonic()
    with pytest.raises(PeerUnavailable, match="did not answer within 1 s"):
        session.call("hang", {})
    assert time.monotonic() - begun < 5
    wait_until(lambda: not psutil.pid_exists(pid))
    session._timeout_seconds = SECONDS
    assert session.call("add", {"a": 1, "b": 1}) == "2"


def test_closing_ends_a_call_that_runs_and_its_process() -> None:
    session = McpSession("test", stdio(), timeout_seconds=SECONDS)
    pid = pid_of(session)
    ended: list[BaseException] = []

    def hang() -> None:
        try:
            session.call("hang", {})
        except PeerUnavailable as error:
            ended.append(error)

    running = threading.Thread(target=hang)
    running.start()
    time.sleep(0.2)
    session.close()
    running.join(10)
    assert len(ended) == 1
    wait_until(lambda: not psutil.pid_exists(pid))
    with pytest.raises(PeerUnavailable):
        session.call("add", {"a": 1, "b": 1})


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"command": "/no/such/command"}, "there is no such command"),
        ({"command": "true"}, "the MCP server test"),
        ({"command": "sleep", "args": ["60"]}, "did not answer within 1 s"),
        ({"url": "http://127.0.0.1:1/mcp"}, "the MCP server test"),
    ],
)
def test_what_is_no_server_is_told_in_a_sentence(config: dict[str, object], sentence: str) -> None:
    session = McpSession("test", McpServerConfig.model_validate(config), timeout_seconds=1.0)
    with pytest.raises(PeerUnavailable, match=sentence):
        session.call("add", {})
    session.close()


def test_tools_are_called_over_http() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, SERVER, str(port)], env=env, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: _listens(port))
        url = f"http://127.0.0.1:{port}/mcp"
        session = McpSession("test", McpServerConfig(url=url), timeout_seconds=SECONDS)
        assert session.call("add", {"a": 1, "b": 2}) == "3"
        process.kill()
        process.wait()
        with pytest.raises(PeerUnavailable):
            session.call("add", {"a": 1, "b": 2})
        session.close()
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def test_a_list_waits_for_no_server_that_hangs() -> None:
    hung = McpServerConfig(command="sleep", args=("60",))
    servers = McpServers({"good": stdio(), "hung": hung}, timeout_seconds=SECONDS)
    (listing,) = servers.listings(["good"], wait_seconds=SECONDS)
    names = [tool.function.name for tool in listing.tools]
    assert names == ["good__add", "good__process", "good__refuse", "good__hang", "good__die"]
    assert '"b": {"title": "B", "type": "integer"}' in listing.tools[0].function.parameters
    begun = time.monotonic()
    good, missing = servers.listings(["good", "hung", "unknown"], wait_seconds=0.2)
    assert time.monotonic() - begun < 10
    assert len(good.tools) == 5
    assert missing.problem == "the MCP server hung has not answered yet"
