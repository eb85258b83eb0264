"""Open WebUI itself, from PyPI, in front of this server: what it sends, and what is taken over.

It has an environment of its own, since it pins a hundred packages: BURNISH_OPEN_WEBUI names its
Python (`make open-webui-test` makes one).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.claims import listen
from app.learning.open_webui import sync_open_webui
from tests.app.conftest import Played
from tests.app.stored import rows, said_of
from tests.support.open_webui import message
from tests.support.waiting import wait_until

PYTHON = os.environ.get("BURNISH_OPEN_WEBUI", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="BURNISH_OPEN_WEBUI names no Python with open-webui"),
]
START_SECONDS = 240
HEADERS = {"X-OpenWebUI-Task": "{{TASK}}"}
TALL = "An oak grows to thirty metres, and a few of them to forty."
SHORT = "An oak is as tall as an oak can be, and no taller than that."


@pytest.fixture(scope="module")
def open_webui(
    api_stage: Played, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Its administrator, who has set this server as the only one."""
    folder = tmp_path_factory.mktemp("open-webui")
    (listener,) = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()
    settings = {
        "FROM_INIT_PY": "true",  # as its own command sets it: the package has its pages
        "DATA_DIR": str(folder),
        "WEBUI_SECRET_KEY": "of this test alone",
        "OPENAI_API_BASE_URL": f"{api_stage.url}/v1",
        "OPENAI_API_KEY": "none",
        "ENABLE_OLLAMA_API": "false",
        "ENABLE_API_KEYS": "true",
        "RAG_EMBEDDING_ENGINE": "openai",  # else it fetches a model
        "OFFLINE_MODE": "true",
        "HF_HUB_OFFLINE": "1",
    }
    command = [PYTHON, "-m", "uvicorn", "open_webui.main:app", "--host", "127.0.0.1"]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=folder,
            env={**os.environ, **settings},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
    try:
        wait_until(lambda: is_up(client, process, log), seconds=START_SECONDS)
        account = {"name": "Ann", "email": "ann@example.org", "password": "a long password 1"}
        signed = client.post("/api/v1/auths/signup", json=account)
        assert signed.status_code == 200, signed.text
        client.headers["Authorization"] = f"Bearer {signed.json()['token']}"
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(timeout=30)


def is_up(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-4_000:]
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def posted(client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def turns_in(played: Played) -> int:
    return played.service.workspace.store.counts()["turns"]


def ask(client: httpx.Client, played: Played, says: str, question: str) -> str:
    """Ask as the page does; returns the answer that is shown."""
    played.engine.says = says
    body = {"model": "live", "messages": [{"role": "user", "content": question}], "stream": False}
    answered = posted(client, "/api/chat/completions", body)
    return str(answered["choices"][0]["message"]["content"])


def test_titles_and_tags_are_no_turns(open_webui: httpx.Client, api_stage: Played) -> None:
    names = [model["id"] for model in open_webui.get("/api/models").json()["data"]]
    assert {"base", "live"} <= set(names)
    before = turns_in(api_stage)
    assert ask(open_webui, api_stage, TALL, "How tall?") == TALL
    assert turns_in(api_stage) == before + 1
    said = [{"role": "user", "content": "How tall?"}, {"role": "assistant", "content": TALL}]
    tasks = [f"/api/v1/tasks/{kind}/completions" for kind in ("title", "tags", "follow_up")]
    for headers in ({}, HEADERS):
        tell_apart(open_webui, api_stage, headers)
        for task in tasks:
            posted(open_webui, task, {"model": "live", "messages": said, "chat_id": "c"})
            asked = api_stage.engine.requests[-1].messages[-1].content
            assert asked.startswith("### Task:"), task
        assert turns_in(api_stage) == before + 1
        assert len(api_stage.engine.requests) >= len(tasks)
    ask(open_webui, api_stage, SHORT, "And how short?")  # its header is empty
    assert turns_in(api_stage) == before + 2


def tell_apart(client: httpx.Client, played: Played, headers: dict[str, str]) -> None:
    """Set the headers of Open WebUI's connection to this server."""
    connection = {
        "ENABLE_OPENAI_API": True,
        "OPENAI_API_BASE_URLS": [f"{played.url}/v1"],
        "OPENAI_API_KEYS": ["none"],
        "OPENAI_API_CONFIGS": {"0": {"enable": True, "headers": headers}},
    }
    posted(client, "/openai/config/update", connection)
    client.get("/api/models")


def test_ratings_and_edits_are_about_the_answers_of_this_server(
    open_webui: httpx.Client, api_stage: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, now = "How tall is an oak tree?", int(time.time())
    for says in (TALL, SHORT):
        ask(open_webui, api_stage, says, question)
    history = {
        "q": message("user", question, at=now, id="q"),
        "a": message("assistant", TALL, "q", at=now, id="a"),
        "b": message("assistant", "A metre.", "q", at=now, id="b", originalContent=SHORT),
    }
    chat = {"title": "Oaks", "models": ["live"], "history": {"messages": history, "currentId": "a"}}
    stored = posted(open_webui, "/api/v1/chats/new", {"chat": chat})
    rating = {
        "type": "rating",
        "data": {"rating": 1, "model_id": "live", "reason": "accurate_information"},
        "meta": {"chat_id": stored["id"], "message_id": "a"},
        "snapshot": {"chat": stored},
    }
    posted(open_webui, "/api/v1/evaluations/feedback", rating)
    key = posted(open_webui, "/api/v1/auths/api_key", {})["api_key"]
    workspace = api_stage.service.workspace
    known = {"open_webui_url": str(open_webui.base_url), "open_webui_api_key": SecretStr(key)}
    monkeypatch.setattr(workspace, "settings", workspace.settings.model_copy(update=known))
    report = sync_open_webui(workspace)
    assert report.set_aside == {}
    assert (report.ratings, report.edits, report.on_policy) == (1, 1, 2)
    assert (report.votes, report.corrections) == (1, 1)
    answers = rows(
        api_stage.service,
        "SELECT answers.id FROM answers JOIN turns ON turns.id = turn_id WHERE question = ?"
        " ORDER BY answers.created_at",
        question,
    )
    good, bad = (row["id"] for row in answers)
    assert said_of(api_stage.service, good, "vote, reasons") == [(1, '["right_facts"]')]
    assert said_of(api_stage.service, bad, "correction") == [("A metre.",)]
    again = sync_open_webui(workspace, everything=True)
    assert (again.votes, again.corrections) == (0, 0)
