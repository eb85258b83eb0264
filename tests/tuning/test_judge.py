"""The AI judge: both orders, what becomes a label, and an endpoint that misbehaves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from engine.errors import (
    BurnishError,
    DeadlineExceeded,
    EngineFailure,
    InvalidInput,
    ModelUnavailable,
    Overloaded,
    PromptTooLong,
)
from engine.messages import Message
from engine.request import Score, ScoreRequest
from feedback_store.ai_feedback.siblings import Siblings
from feedback_store.examples.types import Side
from tests.support.pairs import row
from tests.support.scripted_engine import ScriptedEngine
from tuning.judge import EndpointJudge, EngineJudge, Letter, agreement, compare, label

PROMPT = (Message("user", "What is bread?"),)


@dataclass
class Scripted:
    """A judge with a rule; `None` says nothing."""

    rule: Callable[[str, str], Letter | None]
    name: str = "scripted"

    def choose(self, prompt: Sequence[Message], a: str, b: str) -> Letter | None:
        return self.rule(a, b)


def longer(a: str, b: str) -> Letter | None:
    if len(a) == len(b):
        return None
    return "A" if len(a) > len(b) else "B"


def too_long(a: str, b: str) -> Letter | None:
    raise PromptTooLong("the prompt leaves no room for an answer")


LONGER = Scripted(longer)
FIRST_PLACE = Scripted(lambda a, b: "A")
SECOND_PLACE = Scripted(lambda a, b: "B")


# Both orders


def test_the_answer_that_wins_in_both_orders_is_the_better_one() -> None:
    assert compare(LONGER, PROMPT, "flour and water", "dust") == "first"
    assert compare(LONGER, PROMPT, "dust", "flour and water") == "second"


@pytest.mark.parametrize("judge", [FIRST_PLACE, SECOND_PLACE])
def test_a_judge_that_prefers_a_place_labels_nothing(judge: Scripted) -> None:
    assert compare(judge, PROMPT, "flour and water", "dust") == "orders disagree"


def test_no_answer_in_one_order_is_no_label() -> None:
    mute_about_dust = Scripted(lambda a, b: None if a == "dust" else "A")
    assert compare(mute_about_dust, PROMPT, "flour", "dust") == "no answer"
    assert compare(Scripted(too_long), PROMPT, "flour", "dust") == "too long"


def side(answer_id: str, text: str) -> Side:
    return Side(text, "", True, answer_id, "sha256:base", None)


def siblings(*texts: str) -> Siblings:
    answers = tuple(side(f"a{number}", text) for number, text in enumerate(texts))
    return Siblings(PROMPT, answers, "c1", "sha256:t", "ann")


def test_labels_name_their_judge_their_conversation_and_who_asked() -> None:
    found = label(LONGER, [siblings("dust", "flour and water")])
    (pair,) = found.pairs
    assert (pair.chosen.answer_id, pair.rejected.answer_id) == ("a1", "a0")
    assert (pair.source, pair.judge, pair.prompt) == ("ai", "scripted", PROMPT)
    assert (pair.origin.conversation_id, pair.origin.user_ids) == ("c1", ("ann",))
    assert pair.origin.event_ids == ()
    assert found.outcomes == {"labelled": 1}


def test_what_is_not_labelled_is_counted_with_its_reason() -> None:
    """Neighbours are compared: of three answers, the first two are as long as each other."""
    found = label(LONGER, [siblings("dust", "dirt", "flour and water"), siblings("ab", "abc")])
    assert found.outcomes == {"labelled": 2, "no answer": 1}
    assert [(p.chosen.text, p.rejected.text) for p in found.pairs] == [
        ("flour and water", "dirt"),
        ("abc", "ab"),
    ]
    assert label(FIRST_PLACE, [siblings("ab", "abc")]).outcomes == {"orders disagree": 1}


def test_a_judge_compares_answers_without_their_thoughts() -> None:
    thoughtful = Side("4", "2 and 2", True, "a1", "sha256:base", None)
    shown: list[str] = []

    def first(a: str, _b: str) -> Letter:
        shown.append(a)
        return "A"

    label(Scripted(first), [Siblings(PROMPT, (thoughtful, side("a2", "5")), "c1", "t", "ann")])
    assert shown == ["4", "5"]


def test_agreement_with_people_counts_each_way_a_comparison_can_end() -> None:
    pairs = [
        row("1", "a long answer", "short"),
        row("2", "short", "a long answer"),
        row("3", "as long", "as wide"),
        row("4", "a longer answer", "short"),
    ]
    assert agreement(LONGER, pairs) == {"agrees": 2, "contradicts": 1, "no answer": 1}


# The local engine


class Partial(ScriptedEngine):
    """Finds the letter likelier under which a text stands."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asked: list[ScoreRequest] = []
        self._text = text

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        self.asked += requests
        return [self._score(r.messages[-1].content, r.completion) for r in requests]

    def _score(self, question: str, letter: str) -> Score:
        under_a, under_b = question.split("=== Answer A ===")[1].split("=== Answer B ===")
        here = under_a if letter == "A" else under_b
        return Score((-0.1,) if self._text in here else (-2.0,))


@pytest.fixture
def partial() -> Iterator[Partial]:
    engine = Partial("flour")
    yield engine
    engine.close()


def test_the_local_engine_judges_by_the_likelier_letter(partial: Partial) -> None:
    judge = EngineJudge(partial, "sha256:adapter")
    assert compare(judge, PROMPT, "flour", "dust") == "first"
    assert compare(judge, PROMPT, "dust", "flour") == "second"
    assert compare(judge, PROMPT, "dust", "dirt") == "no answer"  # equally likely
    assert {request.completion for request in partial.asked} == {"A", "B"}
    assert {request.adapter for request in partial.asked} == {"sha256:adapter"}
    assert not any(request.complete for request in partial.asked)
    assert judge.name == f"engine {partial.base_digest} sha256:adapter"


def test_braces_in_an_answer_are_text(partial: Partial) -> None:
    assert compare(EngineJudge(partial), PROMPT, "{b} flour", "{a}") == "first"


# An endpoint


@dataclass
class Server:
    """A local server that replies as told and remembers what it was asked."""

    url: str = ""
    status: int = 200
    reply: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    def says(self, content: Any) -> None:
        self.reply = json.dumps({"choices": [{"message": {"content": content}}]}).encode()


@contextmanager
def serving(server: Server) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.asked.append(
                {"path": self.path, "key": self.headers["Authorization"], **json.loads(body)}
            )
            server.hold.wait(timeout=10)
            self.send_response(server.status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(server.reply)))
            self.end_headers()
            self.wfile.write(server.reply)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}/v1/"
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.hold.set()
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.hold.set()
    with serving(server):
        yield server


def test_an_endpoint_is_asked_in_openais_form_with_its_key(server: Server) -> None:
    server.says("B")
    judge = EndpointJudge(server.url, "big-model", api_key="secret-key")
    assert judge.choose(PROMPT, "flour", "dust") == "B"
    (asked,) = server.asked
    assert asked["path"] == "/v1/chat/completions"
    assert (asked["key"], asked["model"], asked["temperature"]) == (
        "Bearer secret-key",
        "big-model",
        0,
    )
    (message,) = asked["messages"]
    assert message["role"] == "user"
    assert message["content"].index("flour") < message["content"].index("dust")
    assert judge.name == "endpoint big-model"


def test_an_endpoint_without_a_key_gets_none(server: Server) -> None:
    server.says("A")
    EndpointJudge(server.url, "m").choose(PROMPT, "flour", "dust")
    assert server.asked[0]["key"] is None


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("A", "A"),
        (" B.", "B"),
        ("**A**", "A"),
        ("Answer: B", "B"),
        ("(A)", "A"),
        ("", None),
        ("A or B", None),
        ("Both", None),
        ("neither", None),
        ("Bread", None),
        ("<think>A or B?</think>A", "A"),
        ("<think>A seems", None),
    ],
)
def test_a_reply_is_read_only_where_it_names_one_letter(
    server: Server, reply: str, letter: Letter | None
) -> None:
    server.says(reply)
    assert EndpointJudge(server.url, "m").choose(PROMPT, "flour", "dust") == letter


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, InvalidInput),
        (404, InvalidInput),
        (302, InvalidInput),
        (429, Overloaded),
        (503, Overloaded),
        (500, ModelUnavailable),
    ],
)
def test_a_failing_endpoint_gives_its_status_and_nothing_that_was_said(
    server: Server, status: int, error: type[BurnishError]
) -> None:
    server.status, server.reply = status, b"flour secret-key"
    judge = EndpointJudge(server.url, "m", api_key="secret-key")
    with pytest.raises(error) as raised:
        judge.choose(PROMPT, "flour", "dust")
    assert "flour" not in str(raised.value)
    assert "secret-key" not in str(raised.value) + repr(judge)


def test_a_busy_endpoint_says_when_to_come_back(server: Server) -> None:
    server.status, server.headers = 429, {"Retry-After": "7"}
    with pytest.raises(Overloaded) as raised:
        EndpointJudge(server.url, "m").choose(PROMPT, "flour", "dust")
    assert raised.value.retry_after_seconds == 7
    server.headers = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    with pytest.raises(Overloaded) as raised:
        EndpointJudge(server.url, "m").choose(PROMPT, "flour", "dust")
    assert raised.value.retry_after_seconds == 1


@pytest.mark.parametrize(
    "reply", [b"<html>", b"{}", b"[]", b'{"choices": []}', b'{"choices": [{"message": null}]}']
)
def test_a_reply_in_another_form_is_a_failure_and_not_a_tie(server: Server, reply: bytes) -> None:
    server.reply = reply
    with pytest.raises(EngineFailure, match="no chat completion"):
        EndpointJudge(server.url, "m").choose(PROMPT, "flour", "dust")


def test_a_reply_without_text_is_a_failure(server: Server) -> None:
    server.says(None)
    with pytest.raises(EngineFailure, match="no text"):
        EndpointJudge(server.url, "m").choose(PROMPT, "flour", "dust")


def test_an_endpoint_that_does_not_reply_in_time_is_given_up(server: Server) -> None:
    server.hold.clear()
    judge = EndpointJudge(server.url, "m", timeout_seconds=0.2)
    with pytest.raises(DeadlineExceeded, match=r"0\.2 seconds"):
        judge.choose(PROMPT, "flour", "dust")


def test_an_endpoint_that_is_not_there_is_unavailable() -> None:
    with serving(server := Server()):
        pass  # and gone again
    with pytest.raises(ModelUnavailable, match="ConnectError"):
        EndpointJudge(server.url, "m").choose(PROMPT, "flour", "dust")
    with pytest.raises(ModelUnavailable, match="UnsupportedProtocol"):
        EndpointJudge("no-address", "m").choose(PROMPT, "flour", "dust")


def test_an_error_ends_the_labelling(server: Server) -> None:
    server.status = 500
    with pytest.raises(ModelUnavailable):
        label(EndpointJudge(server.url, "m"), [siblings("dust", "flour")])
