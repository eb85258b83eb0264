"""The HTTP API, through a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from app.service import Service
from feedback_store.storage.database import Database
from tests.helpers import make_bundle

Person = Callable[[], httpx.Client]
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello."}], "temperature": 0}


@pytest.fixture
def url(api_url: str) -> str:
    """No test here looks at a page."""
    return api_url


def complete(client: httpx.Client, **more: Any) -> dict[str, Any]:
    response = client.post("/v1/chat/completions", json={**HELLO, "max_tokens": 8, **more})
    assert response.status_code == 200, response.text
    return dict(response.json())


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


# Every route that takes an id, as (method, path, body): {a} and {b} are two answers to one
# question, {c} is a comparison of them
TAKES_AN_ID: list[tuple[str, str, Any]] = [
    ("GET", "/api/answers/{a}", None),
    ("POST", "/api/answers/{a}/vote", {"vote": 1, "reasons": ["followed"], "comment": "yes"}),
    ("POST", "/api/answers/{a}/correction", {"text": "No."}),
    ("POST", "/api/answers/{a}/copy", None),
    ("POST", "/api/answers/{a}/flag", None),
    ("POST", "/api/comparisons", {"left": "{a}", "right": "{b}"}),
    ("POST", "/api/comparisons/{c}/choice", {"choice": "left"}),
]


def two_answers(client: httpx.Client) -> dict[str, str]:
    """Two answers to one question of this person's and a comparison of them, by their letters."""
    choices = complete(client, n=2, temperature=1.0)["choices"]
    ids = {letter: choice["answer_id"] for letter, choice in zip("ab", choices, strict=True)}
    asked = client.post("/api/comparisons", json={"left": ids["a"], "right": ids["b"]})
    return {**ids, "c": asked.json()["id"]}


def send(
    client: httpx.Client, method: str, path: str, body: Any, ids: dict[str, str]
) -> httpx.Response:
    if path == "/api/comparisons":
        body = {side: letter.format(**ids) for side, letter in body.items()}
    return client.request(method, path.format(**ids), json=body)


def test_the_matrix_knows_every_route_that_takes_an_id(url: str) -> None:
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    # Documents have no answers; the same is shown of them in test_documents_api.py
    of_people = [p for p in paths if p.startswith("/api/") and not p.startswith("/api/documents")]
    takes_an_id = {path for path in of_people if "{" in path or "comparisons" in path}
    known = {path.format(a="{answer_id}", c="{comparison_id}") for _, path, _ in TAKES_AN_ID}
    assert takes_an_id == known


def test_nobody_sees_or_judges_anothers_answer(person: Person, service: Service) -> None:
    ann, bob = person(), person()
    mine = two_answers(ann)
    nowhere = dict.fromkeys("abc", "0" * 32)
    before = everything_said(service)
    for method, path, body in TAKES_AN_ID:
        foreign, unknown = (send(bob, method, path, body, ids) for ids in (mine, nowhere))
        assert foreign.status_code == unknown.status_code == 404, path
        assert without_ids(foreign, mine) == without_ids(unknown, nowhere), path
    assert everything_said(service) == before
    for method, path, body in TAKES_AN_ID:
        assert send(ann, method, path, body, mine).status_code == 200, path
    counts = service.workspace.store.counts()
    said = ("votes", "corrections", "copies", "flags", "comparisons")
    assert [counts[kind] for kind in said] == [1, 1, 1, 1, 1]


def test_ones_own_answer_is_not_compared_with_anothers(person: Person, service: Service) -> None:
    ann, bob = person(), person()
    hers, his = two_answers(ann), two_answers(bob)
    before = everything_said(service)
    for left, right in ((hers["a"], his["a"]), (his["a"], hers["a"])):
        refused = bob.post("/api/comparisons", json={"left": left, "right": right})
        assert refused.status_code == 404
    assert everything_said(service) == before


def without_ids(response: httpx.Response, ids: dict[str, str]) -> str:
    text = response.text
    for one in ids.values():
        text = text.replace(one, "")
    return text


def everything_said(service: Service) -> tuple[int, int]:
    """How many events and comparisons there are."""
    with service.workspace.database.read() as connection:
        (comparisons,) = connection.exec_driver_sql("SELECT count(*) FROM comparisons").one()
    return service.workspace.store.event_count(), comparisons


def test_a_vote_carries_its_reasons_and_comment(person: Person, service: Service) -> None:
    client = person()
    route = f"/api/answers/{complete(client)['id']}/vote"
    body = {"vote": -1, "reasons": ["too_long", "wrong_facts"], "comment": "Not in 1492."}
    assert client.post(route, json=body).status_code == 200
    with service.workspace.database.read() as connection:
        row = connection.exec_driver_sql("SELECT vote, reasons, comment FROM events").one()
    assert (row[0], json.loads(row[1]), row[2]) == (-1, ["too_long", "wrong_facts"], "Not in 1492.")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"vote": -1, "reasons": ["boring"]}, "wrong_facts"),  # names what it knows
        ({"vote": 1, "reasons": ["wrong_facts"]}, "right_facts"),  # a reason of the other thumb
        ({"vote": 0, "reasons": ["other"]}, "known: none"),
        ({"vote": 1, "comment": "nul \x00"}, "NUL"),
        ({"vote": 1, "comment": "a" * 4_001}, "4001"),
    ],
)
def test_words_that_cannot_be_stored_get_422_and_change_nothing(
    person: Person, service: Service, body: dict[str, Any], said: str
) -> None:
    client = person()
    route = f"/api/answers/{complete(client)['id']}/vote"
    refused = client.post(route, json=body)
    assert refused.status_code == 422
    assert said in refused.json()["error"]["message"]
    assert service.workspace.store.event_count() == 0


def test_a_comparison_keeps_who_stood_where_and_the_last_choice(
    person: Person, service: Service
) -> None:
    client = person()
    ids = two_answers(client)
    route = f"/api/comparisons/{ids['c']}/choice"
    for choice, key in (("left", "1"), ("right", "2"), ("left", "1")):  # the last is a replay
        body = {"choice": choice, "idempotency_key": key}
        assert client.post(route, json=body).status_code == 200
    assert client.post(route, json={"choice": "neither"}).status_code == 400
    same = client.post("/api/comparisons", json={"left": ids["a"], "right": ids["a"]})
    assert same.status_code == 400
    with service.workspace.database.read() as connection:
        sides = connection.exec_driver_sql(
            "SELECT left_answer_id, right_answer_id FROM comparisons"
        ).one()
        choices = connection.exec_driver_sql("SELECT choice FROM events ORDER BY id").scalars()
        assert tuple(sides) == (ids["a"], ids["b"])
        assert list(choices) == ["left", "right"]


def test_consent_is_each_persons_own(person: Person) -> None:
    ann, bob = person(), person()
    assert ann.get("/api/consent").json() == {"allowed": True}  # unless the operator says opt-in
    assert ann.put("/api/consent", json={"allowed": False}).json() == {"allowed": False}
    assert ann.get("/api/consent").json() == {"allowed": False}
    assert bob.get("/api/consent").json() == {"allowed": True}
    assert ann.put("/api/consent", json={"allowed": "perhaps"}).status_code == 400
    assert ann.put("/api/consent", json={"allowed": True}).json() == {"allowed": True}


def test_a_replayed_vote_changes_nothing(person: Person, service: Service) -> None:
    client = person()
    route = f"/api/answers/{complete(client)['id']}/vote"
    for vote, key in ((1, "a"), (-1, "b"), (1, "a")):
        assert client.post(route, json={"vote": vote, "idempotency_key": key}).status_code == 200
    assert service.workspace.store.counts()["votes_down"] == 1
    assert service.workspace.store.event_count() == 2


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
