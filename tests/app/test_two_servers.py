"""Two servers on one PostgreSQL database, which serve the same people."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from app.service import Service
from app.settings import Settings
from app.workspace import Workspace
from deploy.releases.promotion import Follower
from engine.adapters.slots import AdapterSlots
from engine.errors import EngineFailure
from engine.models.catalogue import BaseModel
from tests.app.conftest import BROWSER, api_alone, listening, settings_of
from tests.app.web.test_chat_api import Stream, ask
from tests.feedback_store.conftest import postgresql  # noqa: F401 - a fixture
from tests.helpers import make_bundle
from tests.postgresql import Server
from tests.support.scripted_engine import ScriptedEngine
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(tmp_path: Path, tiny_base: BaseModel, postgresql: Server) -> Settings:  # noqa: F811
    """One home and one database for both servers; answers are longer than any test."""
    alone = settings_of(tmp_path, tiny_base)
    shared = {"database_url": postgresql.create_migrated(), "max_new_tokens": 4_000}
    return alone.model_copy(update=shared)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(token_seconds=0.05)


@pytest.fixture
def here(
    settings: Settings, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Service, str]]:
    """A running server in this process, and its address."""
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: engine)
    with ExitStack() as stack:
        service = Service(Workspace(settings))
        stack.callback(service.close)
        service.start()
        yield service, stack.enter_context(listening(service, api_alone(service)))


class There(NamedTuple):
    """A server that is a process of its own, and its address."""

    process: subprocess.Popen[str]
    url: str


@pytest.fixture
def there(settings: Settings) -> Iterator[There]:
    """Another server."""
    names = ("home", "model", "model_cache", "database_url", "max_new_tokens")
    given = {f"BURNISH_{name.upper()}": str(getattr(settings, name)) for name in names}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.app.api_child", "0.05"],
        env={**os.environ, **given},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield There(process, process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_a_promotion_on_one_is_live_on_both(tiny_base: BaseModel, settings: Settings) -> None:
    services = [Service(Workspace(settings)) for _ in range(2)]
    for service in services:
        service.start()
    one, other = services
    bundle = make_bundle(one.workspace.home.bundles, tiny_base)
    one.workspace.registry.add(bundle, {"verdict": "better"})
    live = one.workspace.releases.promote(bundle, reason="a gain", actor="ann")
    assert other.workspace.releases.wait_until_served(live) == 2
    assert [service.slots.live for service in services] == [bundle, bundle]
    back = other.workspace.releases.rollback(reason="worse", actor="bob")
    assert one.workspace.releases.wait_until_served(back) == 2
    assert [service.slots.live for service in services] == [None, None]
    for service in services:
        service.close()


def test_a_server_that_dies_keeps_no_promotion_from_the_others(
    here: tuple[Service, str], there: There, tiny_base: BaseModel
) -> None:
    service, _ = here
    registry, releases = service.workspace.registry, service.workspace.releases
    assert len(registry.servers()) == 2
    os.kill(there.process.pid, signal.SIGSTOP)  # it hangs before it sees the promotion, and dies
    bundle = make_bundle(service.workspace.home.bundles, tiny_base)
    registry.add(bundle, {"verdict": "better"})
    live = releases.promote(bundle)
    wait_until(lambda: service.slots.live == bundle)
    there.process.kill()
    assert releases.wait_until_served(live) == 1
    assert registry.live() == live


def test_a_server_whose_engine_has_died_takes_no_release_back(
    settings: Settings, tiny_base: BaseModel
) -> None:
    workspace, engine = Workspace(settings), ScriptedEngine(token_seconds=0.01)
    registry = workspace.registry
    follower = Follower(registry, AdapterSlots(engine, tiny_base, workspace.home.bundles))
    engine.die()
    bundle = make_bundle(workspace.home.bundles, tiny_base)
    registry.add(bundle, {"verdict": "better"})
    live = workspace.releases.promote(bundle)
    follower.start()
    with pytest.raises(EngineFailure, match="1 servers have not followed"):
        workspace.releases.wait_until_served(live, timeout_seconds=0.5)
    assert registry.live() == live
    follower.stop()
    workspace.close()


def test_a_server_that_starts_leaves_the_answers_of_the_other_alone(
    here: tuple[Service, str], settings: Settings
) -> None:
    service, url = here
    with ThreadPoolExecutor() as pool, httpx.Client(base_url=url, timeout=60) as client:
        client.get("/", headers=BROWSER)
        asked = pool.submit(ask, client)
        wait_until(lambda: service.chat.running.count == 1)
        second = Service(Workspace(settings))
        second.start()
        second.close_abandoned_answers()
        assert service.chat.running.count == 1
        service.chat.running.stop_all()
        assert asked.result().ended["status"] == "stopped"
        second.close()


def test_an_answer_is_followed_and_stopped_through_the_other_server(
    here: tuple[Service, str], there: There
) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=60))
        client.get(there.url, headers=BROWSER)
        client.get(here[1], headers=BROWSER)
        pool = stack.enter_context(ThreadPoolExecutor())
        asked = pool.submit(
            lambda: Stream(client.post(f"{there.url}/chat/questions", json={"question": "Count."}))
        )
        conversation = wait_until(lambda: listed(client, here[1]))
        (running,) = wait_until(lambda: running_in(client, here[1], conversation))
        joined = pool.submit(lambda: Stream(client.get(f"{here[1]}/chat/answers/{running}/stream")))
        assert client.post(f"{here[1]}/chat/answers/{running}/stop").status_code == 200
        assert asked.result().ended["status"] == "stopped"
        assert joined.result().ended["turn"]["answer"]["status"] == "stopped"
        assert joined.result().html["a"] == asked.result().html["a"]
        stranger = stack.enter_context(httpx.Client(base_url=here[1]))
        stranger.get("/", headers=BROWSER)
        assert stranger.post(f"/chat/answers/{running}/stop").status_code == 404


def test_an_answer_whose_server_dies_is_continued_by_the_other(
    here: tuple[Service, str], there: There, engine: ScriptedEngine
) -> None:
    engine.says = "and the rest."
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=120))
        client.get(there.url, headers=BROWSER)
        pool = stack.enter_context(ThreadPoolExecutor())
        pool.submit(client.post, f"{there.url}/chat/questions", json={"question": "Count."})
        conversation = wait_until(lambda: listed(client, here[1]))
        (running,) = wait_until(lambda: running_in(client, here[1], conversation))
        wait_until(lambda: "w1" in shown_html(client, here[1], conversation))
        there.process.kill()
        # The page comes here, and follows until the answer is closed
        ended = Stream(client.get(f"{here[1]}/chat/answers/{running}/stream")).ended
        answer = ended["turn"]["answer"]
        assert (answer["status"], answer["continuable"]) == ("aborted", True)
        whole = Stream(client.post(f"{here[1]}/chat/answers/{running}/continue", json={}))
        answer = whole.ended["turn"]["answer"]
        assert (answer["id"], answer["status"]) == (running, "done")
        assert "<p>w0 w1 " in answer["html"]
        assert " and the rest.</p>" in answer["html"]


def listed(client: httpx.Client, url: str) -> str | None:
    """The person's newest conversation, if there is one."""
    found = client.get(f"{url}/chat/conversations").json()["conversations"]
    return found[0]["id"] if found else None


def running_in(client: httpx.Client, url: str, conversation: str) -> list[str]:
    """The running answers of a conversation."""
    return list(client.get(f"{url}/chat/conversations/{conversation}").json()["running"])


def shown_html(client: httpx.Client, url: str, conversation: str) -> str:
    """The answer of a conversation's only turn, as far as it is stored."""
    (turn,) = client.get(f"{url}/chat/conversations/{conversation}").json()["turns"]
    return str(turn["answer"]["html"])
