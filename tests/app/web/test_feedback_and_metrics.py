"""Chat completions over HTTP, through a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from app.service import Service
from feedback_store.storage.database import Database
from tests.app.web.completing import HELLO, Person, complete
from tests.helpers import make_bundle


@pytest.fixture
def url(api_url: str) -> str:
    """No test here looks at a page."""
    return api_url


def test_a_completion_has_the_openai_shape_and_is_stored(person: Person, service: Service) -> None:
    client = person()
    answer = complete(client, ignore_eos=True)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8
    stored = client.get(f"/api/answers/{answer['id']}").json()
    assert stored["text"] == answer["choices"][0]["message"]["content"]
    assert stored["adapter_digest"] is None
    assert stored["base_digest"] == service.engine.base_digest
    assert stored["sampling"]["temperature"] == 0
    assert stored["prompt_tokens"] == answer["usage"]["prompt_tokens"]


def test_a_stream_carries_the_same_text_and_usage_where_asked(person: Person) -> None:
    client = person()
    whole = complete(client)["choices"][0]["message"]["content"]
    body = {**HELLO, "max_tokens": 8, "stream": True, "stream_options": {"include_usage": True}}
    lines = client.post("/v1/chat/completions", json=body).text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    deltas = [c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]]
    assert "".join(deltas) == whole
    assert chunks[-1]["usage"]["completion_tokens"] > 0


def test_the_model_may_be_base_live_or_a_release(person: Person, service: Service) -> None:
    client = person()
    bundle = make_bundle(service.workspace.home.bundles, service.workspace.base, seed=1)
    texts = {
        name: complete(client, model=name)["choices"][0]["message"]["content"]
        for name in ("base", "live", bundle, bundle[7:19])
    }
    assert texts["base"] == texts["live"]
    assert texts[bundle] == texts[bundle[7:19]] != texts["base"]


BAD_INPUT: list[tuple[dict[str, Any], int]] = [
    ({"messages": []}, 400),
    ({"messages": [{"role": "user", "content": " \n\t"}]}, 422),
    ({"messages": [{"role": "user", "content": "nul \x00"}]}, 422),
    ({"messages": [{"role": "wizard", "content": "hi"}]}, 400),
    ({"messages": [{"role": "user", "content": "a" * 100_000}]}, 422),
    ({"messages": [{"role": "user", "content": "sea " * 4_000}]}, 413),
    ({"temperature": -1}, 400),
    ({"temperature": "0.5"}, 400),
    ({"temperature": True}, 400),
    ({"max_tokens": 0}, 400),
    ({"max_tokens": 1.5}, 400),
    ({"min_p": 2}, 400),
    ({"n": 0}, 400),
    ({"n": 17}, 400),
    ({"seed": 2**64}, 400),
    ({"stop": ["a", 1]}, 400),
    ({"stop": ["a"] * 17}, 400),
    ({"logit_bias": {"9999999": 1}}, 400),
    ({"presence_penalty": 2.5}, 400),
    ({"response_format": {"type": "xml"}}, 400),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 7}}}}, 400),
    ({"response_format": {"type": "grammar", "syntax": "regex", "definition": "[a"}}, 400),
    ({"messages": [{"role": "tool", "content": "4"}]}, 400),
    ({"messages": [{"role": "system", "content": "Be kind."}]}, 400),
    ({"messages": [{"role": "assistant", "content": "Hello"}]}, 400),
    ({"messages": [*HELLO["messages"], *[{"role": "assistant", "content": "So"}] * 2]}, 400),
    ({"top_logprobs": 3}, 400),
    ({"logprobs": True, "top_logprobs": 21}, 400),
    ({"timeout_seconds": 0}, 400),
    ({"user": 7}, 400),
    ({"stream_options": "yes"}, 400),
    ({"model": "../../etc/passwd"}, 404),
    ({"model": "00000000"}, 404),
]


def test_bad_input_gets_a_clear_refusal_and_stores_nothing(
    person: Person, service: Service
) -> None:
    client = person()
    for change, status in BAD_INPUT:
        response = client.post("/v1/chat/completions", json={**HELLO, **change})
        assert response.status_code == status, (str(change)[:80], response.text)
        assert response.json()["error"]["message"]
    assert service.workspace.store.counts()["turns"] == 0


def test_what_is_unknown_or_null_is_ignored(person: Person) -> None:
    client = person()
    named = [{"role": "user", "content": "Say hello.", "name": "Ann"}]
    more = {"messages": named, "logit_bias": {}, "mirostat": 2, "stop": None, "n": None}
    expected = complete(client)["choices"][0]["message"]
    assert complete(client, **more)["choices"][0]["message"] == expected


ASKED = '{"messages": [{"role": "user", "content": "hi"}], '
NOT_UNDERSTOOD: dict[str, tuple[str | bytes, str]] = {
    "deep lists": ("[" * 100_000, "nested too deeply"),
    "deep objects": ('{"a":' * 100_000, "nested too deeply"),
    "deep and whole": ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    "no number": (ASKED + '"temperature": NaN}', "NaN"),
    "an unknown field": (ASKED + '"unknown": -Infinity}', "-Infinity"),
    "beyond a float": (ASKED + '"temperature": 1e999}', "temperature"),
    "a huge number": (ASKED + '"seed": ' + "9" * 5_000 + "}", "digits"),
    "a surrogate of the wrong type": ('{"messages": "\\ud800"}', "messages"),
    "half a document": ('{"messages": [', "not JSON"),
    "not UTF-8": (b"\xff\xfe{}", "UTF-8"),
    "no object": ("[]", "the body"),
    "nothing": ("", "the body"),
}


def test_a_body_that_is_not_understood_gets_400_and_one_sentence(person: Person) -> None:
    client = person()
    headers = {"content-type": "application/json"}
    for name, (body, said) in NOT_UNDERSTOOD.items():
        response = client.post("/v1/chat/completions", content=body, headers=headers)
        assert response.status_code == 400, (name, response.text)
        message = response.json()["error"]["message"]
        assert said in message, name
        assert "\n" not in message
        assert len(message) < 300
        vote = client.post("/api/answers/0/vote", content=body, headers=headers)
        assert vote.status_code == 400, (name, vote.text)


def test_a_seed_draws_the_same_choices_each_and_the_next_seeds_those_after(person: Person) -> None:
    client = person()
    drawn = {"temperature": 1.0, "ignore_eos": True}
    three = complete(client, **drawn, n=3, seed=5)
    texts = [choice["message"]["content"] for choice in three["choices"]]
    alone = [
        complete(client, **drawn, seed=5 + i)["choices"][0]["message"]["content"] for i in range(3)
    ]
    assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]
    assert texts == alone
    assert len(set(texts)) > 1
    assert three["usage"]["completion_tokens"] == 24


def test_choices_are_sibling_answers_of_one_turn_and_can_be_voted_on(
    person: Person, service: Service
) -> None:
    client = person()
    answer = complete(client, n=2, temperature=1.0)
    ids = [choice["answer_id"] for choice in answer["choices"]]
    assert answer["id"] == f"chatcmpl-{ids[0]}"
    for answer_id, vote in zip(ids, (1, -1), strict=True):
        voted = client.post(f"/api/answers/{answer_id}/vote", json={"vote": vote})
        assert voted.status_code == 200
    counts = service.workspace.store.counts()
    assert (counts["turns"], counts["answers"]) == (1, 2)
    stored = client.get(f"/api/answers/{ids[1]}").json()
    assert stored["sampling"]["min_p"] == 0
    assert stored["sampling"]["logprobs"] is None


def test_log_probabilities_have_the_openai_shape(person: Person) -> None:
    client = person()
    asked = {"logprobs": True, "top_logprobs": 2, "ignore_eos": True}
    content = complete(client, **asked)["choices"][0]["logprobs"]["content"]
    assert len(content) == 8
    for token in content:
        assert set(token) == {"token", "logprob", "bytes", "top_logprobs"}
        assert token["logprob"] == token["top_logprobs"][0]["logprob"] <= 0  # greedy
        assert bytes(token["bytes"]).decode() == token["token"]
        assert len(token["top_logprobs"]) == 2
    chunks = streamed(client, **asked)
    parts = [c["choices"][0]["logprobs"] for c in chunks]
    assert [token for part in parts if part for token in part["content"]] == content
    assert complete(client)["choices"][0]["logprobs"] is None


def streamed(client: httpx.Client, **more: Any) -> list[dict[str, Any]]:
    """The chunks of a stream that ends as every stream must."""
    body = {**HELLO, "max_tokens": 8, "stream": True, **more}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    lines = response.text.strip().split("\n\n")
    assert lines.index("data: [DONE]") == len(lines) - 1
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_streamed_choices_carry_their_index_and_each_ends_once(person: Person) -> None:
    client = person()
    more = {"n": 3, "seed": 5, "temperature": 1.0, "stream_options": {"include_usage": True}}
    whole = complete(client, **more, stream=False)
    *chunks, last = streamed(client, **more)
    texts, ends = ["", "", ""], [0, 0, 0]
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        ends[choice["index"]] += choice["finish_reason"] is not None
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]
    assert ends == [1, 1, 1]
    assert last["usage"] == whole["usage"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_thought_is_reasoning_content_whole_and_streamed(
    person: Person, service: Service, model_says: Callable[[str], None]
) -> None:
    """As DeepSeek's API and llama.cpp name it; the answer is `content` alone."""
    client = person()
    model_says("<think>\nOne </ and one.\n</think>\n\nIt is <b>two</b>. \n")
    (choice,) = complete(client, max_tokens=99)["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "It is <b>two</b>. \n",
        "reasoning_content": "One </ and one.",
    }
    deltas = [c["choices"][0]["delta"] for c in streamed(client, max_tokens=99) if c["choices"]]
    for key in ("content", "reasoning_content"):
        assert "".join(delta.get(key, "") for delta in deltas) == choice["message"][key]
    assert len([delta for delta in deltas if delta.get("reasoning_content")]) > 1
    model_says("Two.")
    assert "reasoning_content" not in complete(client, max_tokens=99)["choices"][0]["message"]


def test_earlier_thoughts_are_not_shown_to_the_model(person: Person, service: Service) -> None:
    def shown(**answer: str) -> list[str]:
        messages = [
            {"role": "user", "content": "One and <think>one</think>?"},
            {"role": "assistant", **answer},
            {"role": "user", "content": "And two?"},
        ]
        complete(client, messages=messages)
        with service.workspace.database.read() as connection:
            newest = "SELECT prompt FROM turns ORDER BY created_at DESC LIMIT 1"
            prompt = json.loads(connection.exec_driver_sql(newest).scalar_one())
        return [message["content"] for message in prompt]

    client = person()
    expected = ["One and <think>one</think>?", "Two.", "And two?"]
    assert shown(content="Two.", reasoning_content="Hm.") == expected
    assert shown(content="<think>Hm.</think>\n\nTwo.") == expected


def test_a_lone_surrogate_is_refused(person: Person) -> None:
    body = '{"messages": [{"role": "user", "content": "\\ud800"}]}'
    response = person().post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 422


def test_a_full_disk_is_said_and_the_chat_goes_on(person: Person, service: Service) -> None:
    client = person()
    answer = complete(client)
    fill_the_disk(service.workspace.database)
    correction = {"text": "x" * 200_000}
    refused = client.post(f"/api/answers/{answer['id']}/correction", json=correction)
    assert refused.status_code == 507
    assert "not saved" in refused.json()["error"]["message"]
    assert service.workspace.store.counts()["corrections"] == 0
    long = {"role": "user", "content": "water " * 400}
    for _ in range(50):  # until the last free page is used up
        again = complete(client, messages=[long], max_tokens=4)
        assert again["choices"][0]["message"]["content"]
        if again["id"] == "unsaved":
            return
    pytest.fail("the disk never became full")


def fill_the_disk(database: Database) -> None:
    """Let the database grow no more: SQLite then fails just as on a full disk."""
    with database.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    def limit(connection: Any, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    event.listen(database._engine, "connect", limit)
    database.close()  # new connections have the limit


def test_health_and_metrics(person: Person) -> None:
    client = person()
    complete(client)
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "live": None}
    metrics = client.get("/metrics").text
    assert 'burnish_feedback{kind="answers"} 1.0' in metrics
    assert "hello" not in metrics


def test_a_dead_engine_is_not_ready_and_answers_503(person: Person, service: Service) -> None:
    client = person()
    service.engine.close()
    assert client.get("/readyz").status_code == 503
    assert client.post("/v1/chat/completions", json=HELLO).status_code == 503
