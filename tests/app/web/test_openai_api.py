"""The OpenAI-compatible routes, through a real server, as their clients use them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.service import Service
from feedback_store.formats import export_examples, import_file
from tests.app.conftest import serving_engine
from tests.feedback_store.formats.helpers import Listener
from tests.helpers import make_bundle

Person = Callable[[], httpx.Client]
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
HELLO = {"role": "user", "content": "Say hello."}
GREEDY = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}


@pytest.fixture
def url(api_url: str) -> str:
    """No test here looks at a page."""
    return api_url


def complete(client: httpx.Client, *messages: Any, **more: Any) -> dict[str, Any]:
    response = client.post(CHAT, json={"messages": messages, **GREEDY, **more})
    assert response.status_code == 200, response.text
    return dict(response.json())


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def assert_refused(response: httpx.Response, status: int, said: str = "") -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["type"]
    assert said in error["message"]
    assert "\n" not in error["message"]


def test_what_clients_send_is_the_same_question_in_other_words(person: Person) -> None:
    client = person()
    system = {"role": "system", "content": "Be kind."}
    plain = text_of(complete(client, system, HELLO))
    parts = [{"type": "text", "text": "Say hello."}]
    sent = (
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": parts, "name": "Ann"},
    )
    assert text_of(complete(client, *sent)) == plain
    more = {
        "stop": [],
        "seed": -1,
        "n": 2,
        "top_p": 0,
        "max_completion_tokens": None,
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "metadata": {"a": "b"},
    }
    choices = complete(client, *sent, **more)["choices"]
    assert [choice["message"]["content"] for choice in choices] == [plain, plain]
    sampled = {"temperature": 2.0, "top_p": 0}
    assert text_of(complete(client, *sent, **sampled)) == plain
    banned = client.post(CHAT, json={"messages": [HELLO], "logit_bias": {"340": 1}})
    assert_refused(banned, 400, "the model has tokens 0 to ")


def test_an_answer_follows_its_response_format(person: Person) -> None:
    client = person()
    schema = {"enum": ["red", "blue"]}
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "colour", "strict": True, "schema": schema},
    }
    sampled = {"temperature": 1.5, "max_tokens": 20, "seed": 3, "n": 4}
    choices = complete(client, HELLO, response_format=wanted, **sampled)["choices"]
    assert {choice["message"]["content"] for choice in choices} <= {'"red"', '"blue"'}
    assert {choice["finish_reason"] for choice in choices} == {"stop"}
    grammar = {"type": "grammar", "syntax": "gbnf", "definition": 'root ::= "up" | "down"'}
    assert text_of(complete(client, HELLO, response_format=grammar)) in ("up", "down")
    beyond_the_context = {"response_format": grammar, "max_tokens": 10**12}
    assert text_of(complete(client, HELLO, **beyond_the_context)) in ("up", "down")
    anything = text_of(complete(client, HELLO, response_format={"type": "json_object"}))
    assert anything.startswith("{")  # cut at eight tokens, it need not be whole
    begun = {"role": "assistant", "content": "The"}
    refused = client.post(CHAT, json={"messages": [HELLO, begun], "response_format": wanted})
    assert_refused(refused, 400, "cannot follow a grammar")


def test_a_begun_answer_is_continued_and_stored_whole(person: Person, service: Service) -> None:
    client = person()
    begun = {"role": "assistant", "content": "The river "}
    answer = complete(client, HELLO, begun)
    shorter = complete(client, HELLO)
    prefilled = answer["usage"]["prompt_tokens"] - shorter["usage"]["prompt_tokens"]
    assert prefilled == len(
        serving_engine(service).renderer.completion("The river ", complete=False)
    )
    stored = client.get(f"/api/answers/{answer['id']}").json()
    assert stored["text"] == "The river " + text_of(answer)
    store, user = service.workspace.store, stored_user(service)
    turn, shown = store.shown_prompt(answer["choices"][0]["answer_id"], user)
    assert turn.question == "Say hello."
    assert [(m.role, m.content) for m in shown] == [("user", "Say hello.")]
    body = {"messages": [HELLO, begun], **GREEDY, "stream": True}
    response = client.post(CHAT, json=body)
    assert response.headers["cache-control"] == "no-cache"  # or a proxy keeps it
    assert response.headers["x-accel-buffering"] == "no"  # or nginx sends it all at the end
    lines = response.text.split("\n\n")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(deltas) == text_of(answer)


def stored_user(service: Service) -> str:
    with service.workspace.database.read() as connection:
        return str(connection.exec_driver_sql("SELECT user_id FROM turns").scalars().first())


SHAPES: list[list[Any]] = [
    [HELLO],
    [{"role": "system", "content": "=Be kind."}, HELLO],
    [HELLO, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Again"}],
    [{"role": "assistant", "content": "Welcome."}, HELLO],
    [HELLO, {"role": "system", "content": "Be brief."}],
    [HELLO, HELLO, {"role": "assistant", "content": " "}],
]


def test_what_the_api_stores_is_exported_and_comes_back(
    person: Person, service: Service, tmp_path: Path
) -> None:
    client = person()
    for messages in SHAPES:
        answer = complete(client, *messages, seed=len(messages), temperature=1.0)
        route = f"/api/answers/{answer['id']}/vote"
        assert client.post(route, json={"vote": 1}).status_code == 200
    service.workspace.training_set.refresh(reestimate=True)
    examples = service.workspace.training_set.load_examples()[1].unpaired
    assert len(examples) == len(SHAPES)
    for how in ("trl", "csv"):
        export_examples(examples, tmp_path / how, format=how)
        listener = Listener()
        import_file(listener, tmp_path / how)
        expected = [(example.prompt, example.completion.full_text) for example in examples]
        assert [(turn.prompt, turn.answers[0].text) for turn in listener.turns] == expected


def test_models_have_the_openai_shape(person: Person, service: Service) -> None:
    client = person()
    bundle = make_bundle(service.workspace.home.bundles, service.workspace.base)
    service.workspace.registry.add(bundle, {})
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["base", "live", bundle]
    now = time.time()
    for model in listed["data"]:
        assert set(model) == {"id", "object", "created", "owned_by"}
        assert isinstance(model["created"], int)
        assert now - 3600 < model["created"] <= now
        assert client.get(f"/v1/models/{model['id']}").json() == model
    assert client.get(f"/v1/models/{bundle[7:19]}").json() == listed["data"][-1]
    for unknown in ("gpt-4", "00000000"):
        assert_refused(client.get(f"/v1/models/{unknown}"), 404)


def test_every_path_and_method_has_the_documented_answer(person: Person) -> None:
    client = person()
    for path in ("/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/base"):
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        wrong = client.post(path, headers={"accept": "text/html"})
        assert_refused(wrong, 405, f"{path} takes GET, HEAD and not POST")
        assert wrong.headers["allow"] == "GET, HEAD"
    for path in (CHAT, "/v1/completions", "/v1/embeddings"):
        for method in ("GET", "HEAD", "DELETE"):
            refused = client.request(method, path)
            assert (refused.status_code, refused.headers["allow"]) == (405, "POST"), method
        allowed = client.options(path)
        assert (allowed.status_code, allowed.headers["allow"]) == (204, "POST")
    assert client.options("/v1/models").headers["allow"] == "GET, HEAD"
    assert client.options("/v1/nothing").status_code == 404
    assert client.patch("/api/consent").headers["allow"] == "GET, HEAD, PUT"
    for path in (
        "/v1",
        "/v1/",
        "/v1/images/generations",
        "/v1/models/",
        f"{CHAT}/",
        "/v1/models/a/b",
        "/api",
        "/api/answers",
        "/healthz/",
        "/readyz/x",
        "/metrics/",
    ):
        for method in ("GET", "POST"):
            refused = client.request(method, path, headers={"accept": "text/html"})
            assert_refused(refused, 404, f"there is no path {path}")
    assert client.head("/v1/nothing").status_code == 404
    assert client.get("/", headers={"accept": "text/html"}).status_code == 200  # the page is there


def test_huge_requests_are_refused_cheaply_and_stall_nobody(url: str) -> None:
    hello = {"role": "user", "content": "hi"}
    many: dict[str, tuple[dict[str, Any], int]] = {
        "messages": ({"messages": [hello] * 90_000}, 413),
        "text": ({"messages": [{"role": "user", "content": "sea " * 95_000}, hello] * 10}, 413),
        "no messages": ({"messages": [7] * 900_000}, 400),
        "parts": ({"messages": [{"role": "user", "content": [{"type": "x"}] * 250_000}]}, 400),
        "stops": ({"messages": [hello], "stop": ["a"] * 100_000}, 400),
        "wrong stops": ({"messages": [hello], "stop": [1] * 100_000}, 400),
        "biases": ({"messages": [hello], "logit_bias": {str(i): "" for i in range(200_000)}}, 400),
    }
    watch = Watch(url)
    before = psutil.Process().memory_info().rss
    with watch:
        for name, (body, status) in many.items():
            content = json.dumps(body).encode()
            begun = time.monotonic()
            response = httpx.post(f"{url}{CHAT}", content=content, headers=JSON, timeout=60)
            assert time.monotonic() - begun < 5, name  # it was 5 to 20 s, on a machine at rest
            assert_refused(response, status)
            assert len(response.text) < 600, name
    assert psutil.Process().memory_info().rss - before < 400 << 20  # it was 1.3 GB
    assert watch.slowest < 2  # it was seconds; 0.2 s on a machine at rest


class Watch:
    """Asks for the server's health again and again, and keeps the longest wait in seconds."""

    def __init__(self, url: str) -> None:
        self.slowest = 0.0
        self._url = url
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url) as client:
            while not self._done.wait(0.01):
                begun = time.monotonic()
                assert client.get("/healthz").status_code == 200
                self.slowest = max(self.slowest, time.monotonic() - begun)
