"""The feedback that a scripted user gives: choices, thumbs, and what becomes of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from app.demo.feedback import answers_to, give_comparisons
from app.demo.scripted_user import WISHES, ScriptedUser
from app.service import Service
from engine.models.catalogue import BaseModel
from engine.request import SamplingParams
from tests.app.conftest import served, settings_of
from tests.support.scripted_engine import ScriptedEngine
from tests.support.voices import Voice

BRIEF, FULL = "It is blue.", "It is blue. It is wide. It is far away."
SAMPLING = SamplingParams(max_new_tokens=40)


@pytest.fixture
def service(
    tmp_path: Path, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """A service whose answers to a question are brief and full in turns."""
    texts: dict[str, Iterator[str]] = defaultdict(lambda: cycle([BRIEF, FULL]))
    engine = ScriptedEngine(voices={None: Voice(lambda prompt: next(texts[prompt]))})
    monkeypatch.setattr("engine.start.start_engine", lambda *_, **__: engine)
    with served(settings_of(tmp_path, tiny_base)) as (service, _):
        yield service


def test_an_answer_that_is_chosen_and_liked_is_the_users_own_example(service: Service) -> None:
    user = ScriptedUser(WISHES["full"], user_id="wants-full")
    questions = ["What is the sky?", "What is the sea?", "What is the lake?"]
    counts = give_comparisons(service, user, questions, SAMPLING, most=2, likes_chosen=True)
    assert (counts.comparisons, counts.votes_up, counts.prompts) == (2, 2, 3)
    examples = service.workspace.own_examples.of("wants-full")
    assert [example.answer for example in examples] == [FULL, FULL]
    service.workspace.training_set.refresh()
    _, found = service.workspace.training_set.load_examples()
    assert [(pair.chosen.text, pair.rejected.text) for pair in found.pairs] == [(FULL, BRIEF)] * 2


def test_answers_of_a_temporary_chat_are_not_stored(service: Service) -> None:
    answers = answers_to(service, ScriptedUser(WISHES["short"]), ["Is it blue?"], SAMPLING)
    assert [answer.text for answer in answers] == [BRIEF]
    assert service.workspace.conversations.page("scripted-user") == []
