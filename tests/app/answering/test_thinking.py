"""The switch for thoughts: from the page and the API to the engine, and kept with the answer."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.app.conftest import Played
from tests.app.web.test_chat_api import Stream, ask


@pytest.fixture(scope="module")
def stage(api_stage: Played) -> Played:
    """No page is looked at here, and no answer on its way."""
    return api_stage


@pytest.fixture
def client(played: Played) -> Iterator[httpx.Client]:
    """A new person's client."""
    with httpx.Client(base_url=played.url, timeout=60) as client:
        client.get("/", headers={"accept": "text/html"})
        yield client


def asked(played: Played) -> bool | None:
    return played.engine.requests[-1].thinking


def test_the_choice_is_stored_and_every_further_answer_keeps_it(
    client: httpx.Client, played: Played
) -> None:
    first = ask(client, "Why?", thinking=False, sampling={"max_new_tokens": 4})
    assert asked(played) is False
    assert first.ended["turn"]["answer"]["sampling"]["thinking"] is False
    path = f"/chat/answers/{first.answer}"
    again = Stream(client.post(f"{path}/again", json={}))
    assert asked(played) is False
    assert again.ended["turn"]["answer"]["sampling"]["thinking"] is False
    change = {"change": "shorter", "instruction": "Shorter."}
    for way, body in (("again", change), ("continue", {})):
        client.post(f"{path}/{way}", json=body)
        assert asked(played) is False


def test_unasked_nothing_is_said_of_it(client: httpx.Client, played: Played) -> None:
    stream = ask(client, "Why?")
    assert asked(played) is None
    assert "thinking" not in stream.ended["turn"]["answer"]["sampling"]


@pytest.mark.parametrize(
    ("options", "thinking"),
    [({}, None), ({"enable_thinking": False}, False), ({"enable_thinking": True, "x": 1}, True)],
)
def test_the_api_takes_it_as_vllm_does(
    client: httpx.Client, played: Played, options: dict[str, object], thinking: bool | None
) -> None:
    body = {"messages": [{"role": "user", "content": "Why?"}], "chat_template_kwargs": options}
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    assert asked(played) is thinking


def test_the_api_refuses_what_is_neither(client: httpx.Client) -> None:
    body = {
        "messages": [{"role": "user", "content": "Why?"}],
        "chat_template_kwargs": {"enable_thinking": "no"},
    }
    refused = client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert "enable_thinking" in refused.text
