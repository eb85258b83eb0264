"""Alternatives are written while nobody asks anything, and give way at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from app.answering.running_answers import RunningAnswers
from app.learning.alternatives import IDLE_SECONDS
from app.service import Service
from app.web.auth.identity import new_user
from tests.app.conftest import Played
from tests.support.waiting import wait_until


@pytest.fixture
def disliked(played: Played) -> Iterator[str]:
    """A new person's question with a thumb down; the person."""
    user = new_user()
    played.engine.says = "Bad."
    *_, last = played.service.chat.ask(user, "Why is the sky blue?", conversation_id=user)
    assert last.answer_id is not None
    played.service.workspace.store.vote(last.answer_id, user, -1)
    yield user
    played.service.workspace.forgetting.forget(user)


def idle(service: Service, monkeypatch: pytest.MonkeyPatch, seconds: float = IDLE_SECONDS) -> None:
    monkeypatch.setattr(RunningAnswers, "idle_seconds", seconds)


def counts(service: Service) -> tuple[int, int]:
    queue = service.workspace.comparison_queue.counts()
    return service.workspace.alternatives.count(), queue["waiting"]


def test_an_idle_engine_writes_alternatives_of_a_bad_answer(
    played: Played, disliked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = played.service
    played.engine.answers = iter(["Dust.", "Air scatters blue.", "Dust.", "Because."])
    before = len(played.engine.requests)
    assert service.alternative_writer.write_while_idle() == 0  # somebody was here just now
    idle(service, monkeypatch)
    assert service.alternative_writer.write_while_idle() == 1
    asked = played.engine.requests[before:]
    assert len(asked) == service.workspace.settings.alternatives
    assert len({request.sampling.seed for request in asked}) == len(asked)
    assert {request.messages[-1].content for request in asked} == {"Why is the sky blue?"}
    assert all(request.sampling.temperature > 0 for request in asked)
    (waiting,) = service.workspace.comparison_queue.waiting(5)
    assert waiting.first.text != waiting.second.text
    assert (waiting.first.status, waiting.first.adapter_digest) == ("done", None)
    assert service.alternative_writer.write_while_idle() == 0  # each bad answer once


def test_whoever_asks_ends_them_before_their_own_answer_is_queued(
    played: Played, disliked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, engine = played.service, played.engine
    idle(service, monkeypatch)
    engine.says = ""  # an answer of many tokens
    monkeypatch.setattr(engine, "token_seconds", 0.05)
    before = len(engine.requests)
    written: list[int] = []
    writer = threading.Thread(
        target=lambda: written.append(service.alternative_writer.write_while_idle())
    )
    writer.start()
    wait_until(lambda: engine.running == 4)
    cancelled: list[bool] = []
    submit = engine.submit_many

    def submitted(requests: Any) -> Any:
        cancelled.append(all(row.stream.cancelled for row in engine._rows))
        return submit(requests)

    monkeypatch.setattr(engine, "submit_many", submitted)
    answer = service.chat.ask(disliked, "And the sea?", conversation_id=disliked)
    assert cancelled == [True]
    answer.cancel()
    list(answer)
    writer.join(timeout=10)
    assert (written, counts(service)) == ([0], (0, 0))  # nothing half-written is kept
    engine.says = "Whole."
    assert service.alternative_writer.write_while_idle() == 1  # and it is written another time
    assert len(engine.requests) - before == 4 + 1 + 4
    assert counts(service) == (4, 0)  # four times the same: nothing to compare


def test_training_and_a_setting_of_none_come_first(
    played: Played, disliked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = played.service
    idle(service, monkeypatch)
    with service.rounds._one:
        assert service.alternative_writer.write_while_idle() == 0
    monkeypatch.setattr(service.alternative_writer, "_count", 0)
    assert service.alternative_writer.write_while_idle() == 0


def test_an_engine_that_fails_is_tried_again_later(
    played: Played, disliked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, engine = played.service, played.engine
    idle(service, monkeypatch)
    engine.says = ""
    monkeypatch.setattr(engine, "token_seconds", 0.05)
    writer = threading.Thread(target=service.alternative_writer.write_while_idle)
    writer.start()
    wait_until(lambda: engine.running == 4)
    engine.break_off("the model fell over")
    writer.join(timeout=10)
    assert counts(service) == (0, 0)
    engine.says = "Whole."
    assert service.alternative_writer.write_while_idle() == 1


def test_a_server_that_ends_cancels_them() -> None:
    running = RunningAnswers()
    with running.background() as token:
        assert not token.cancelled
        running.refuse_more()
        assert token.cancelled
    with running.background() as late:
        assert late.cancelled
