"""Corrections and liked answers are in view of the next similar question of their person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.answering.answer_options import AnswerOptions
from app.answering.conversation import Chat
from app.service import Service
from app.workspace import Workspace
from engine.messages import Message
from engine.request import SamplingParams
from tests.app.answering.asking import GREEDY, ask

OAK, ELM = "How tall is an oak tree?", "How tall is an elm tree?"


def shown(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, str]]]:
    """A list that grows by the messages of each request to the engine."""
    requests: list[list[tuple[str, str]]] = []
    submit_many = service.engine.submit_many

    def note(batch: Any) -> Any:
        requests.extend([(m.role, m.content) for m in request.messages] for request in batch)
        return submit_many(batch)

    monkeypatch.setattr(service.engine, "submit_many", note)
    return requests


def correct(chat: Chat, service: Service, question: str, correction: str) -> str:
    answer_id = str(ask(chat, question, conversation_id=question).answer_id)
    service.workspace.store.correct(answer_id, "ann", correction)
    return answer_id


def test_a_correction_is_in_view_of_the_next_similar_question_of_this_person_alone(
    chat: Chat, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrected = correct(chat, service, OAK, "30 m.")
    requests = shown(service, monkeypatch)
    similar = ask(chat, ELM)
    unrelated = ask(chat, "Who painted the Mona Lisa?")
    *_, strangers = chat.ask("bob", ELM, AnswerOptions(sampling=GREEDY), conversation_id="b")
    system = ("system", "You are a helpful assistant.")
    assert requests == [
        [system, ("user", OAK), ("assistant", "30 m."), ("user", ELM)],
        [system, ("user", "Who painted the Mona Lisa?")],
        [system, ("user", ELM)],
    ]
    assert [u.example_ids for u in (similar, unrelated, strangers)] == [(corrected,), (), ()]
    examples = service.workspace.feedback_examples
    assert [e.id for e in examples.used("ann", str(similar.answer_id))] == [corrected]
    assert examples.used("ann", str(unrelated.answer_id)) == ()


def test_own_examples_stand_after_the_operators_and_before_the_history(
    chat: Chat, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(chat, service, OAK, "30 m.")
    first = ask(chat, "Hello there.", mode="few-shot")
    requests = shown(service, monkeypatch)
    ask(chat, ELM, mode="few-shot", parent_answer_id=first.answer_id)
    (messages,) = requests
    assert messages[7:] == [  # after the system prompt and three examples
        ("user", OAK),
        ("assistant", "30 m."),
        ("user", "Hello there."),
        ("assistant", first.text),
        ("user", ELM),
    ]


def test_in_chain_of_thought_only_a_liked_answer_with_its_thought_is_an_example(
    chat: Chat, service: Service, model_says: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(chat, service, OAK, "30 m.")
    model_says("Elms are tall.\nAnswer: 40 m")
    more: Any = {"mode": "few-shot-cot", "sampling": SamplingParams(max_new_tokens=99)}
    liked = ask(chat, ELM, conversation_id="elm", **more)
    service.workspace.store.vote(str(liked.answer_id), "ann", 1)
    requests = shown(service, monkeypatch)
    ask(chat, "How tall is a birch tree?", **more)
    assert [text for role, text in requests[0] if role == "assistant"][3:] == [
        "Elms are tall.\nAnswer: 40 m"
    ]
    assert requests[0][-3][1].startswith(f"{ELM}\n\nThink step by step")


def test_an_example_that_was_removed_is_gone_at_once_also_from_another_answer(
    chat: Chat, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrected = correct(chat, service, OAK, "30 m.")
    similar = ask(chat, ELM)
    requests = shown(service, monkeypatch)
    *_, again = chat.regenerate("ann", str(similar.answer_id), sampling=GREEDY)
    assert (again.text, again.example_ids) == (similar.text, (corrected,))
    service.workspace.feedback_examples.remove("ann", corrected)
    *_, without = chat.regenerate("ann", str(similar.answer_id), sampling=GREEDY)
    ask(chat, ELM)
    assert [("30 m." in str(messages)) for messages in requests] == [True, False, False]
    assert without.example_ids == ()


def test_who_takes_consent_back_is_shown_no_example_any_more(
    chat: Chat, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(chat, service, OAK, "30 m.")
    similar = ask(chat, ELM)
    service.workspace.curation.set_consent("ann", False)
    requests = shown(service, monkeypatch)
    *_, _ = chat.regenerate("ann", str(similar.answer_id), sampling=GREEDY)
    ask(chat, ELM)
    assert "30 m." not in str(requests)


def test_training_sees_the_prompt_without_the_persons_own_examples(
    chat: Chat, service: Service
) -> None:
    """And a forgotten conversation leaves no word in the prompts of others."""
    correct(chat, service, OAK, "30 m.")
    similar = ask(chat, ELM, mode="few-shot")
    store = service.workspace.store
    store.vote(str(similar.answer_id), "ann", 1)
    turn, messages = store.shown_prompt(str(similar.answer_id), "ann")
    assert "30 m." not in str(messages)
    assert messages[-1] == Message("user", ELM)
    service.workspace.training_set.refresh(reestimate=True)
    _, examples = service.workspace.training_set.load_examples()
    (liked,) = (e for e in examples.unpaired if e.origin.conversation_id == turn.conversation_id)
    assert liked.prompt == messages


def test_of_a_longer_file_the_similar_examples_are_shown_and_the_prompt_is_kept(
    chat: Chat, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = ["Bread?", "A novel?", "A river?", "An elm?"]
    (service.workspace.home.examples).write_text(
        "".join(f"- {{question: {q!r}, thought: T, answer: {q.upper()!r}}}\n" for q in topics)
    )
    requests = shown(service, monkeypatch)
    about_elms, other = ask(chat, ELM, mode="few-shot"), ask(chat, "Hm?", mode="few-shot")
    questions = [[text for role, text in m if role == "user"] for m in requests]
    assert questions == [["Bread?", "A novel?", "An elm?", ELM], [*topics[:3], "Hm?"]]
    store = service.workspace.store
    for done, messages in zip((about_elms, other), requests, strict=True):
        turn, kept = store.shown_prompt(str(done.answer_id), "ann")
        assert [(m.role, m.content) for m in kept] == messages
    assert turn.template_hash == store.turn_of(str(about_elms.answer_id), "ann").template_hash


def test_own_examples_can_be_switched_off_and_shared_ones_are_still_shown(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(Workspace(settings.model_copy(update={"own_examples": False})))
    corrected = correct(service.chat, service, OAK, "30 m.")
    requests = shown(service, monkeypatch)
    ask(service.chat, ELM)
    assert "30 m." not in str(requests)
    service.workspace.shared_examples.approve(corrected)
    *_, shared = service.chat.ask("bob", ELM, AnswerOptions(sampling=GREEDY), conversation_id="b")
    assert (shared.example_ids, "30 m." in str(requests[-1])) == ((corrected,), True)
    service.close()


def test_a_shared_example_is_in_view_of_everybody_and_training_sees_the_prompt_without_it(
    chat: Chat, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrected = correct(chat, service, OAK, "30 m.")
    workspace = service.workspace
    workspace.shared_examples.approve(corrected)
    requests = shown(service, monkeypatch)
    *_, first = chat.ask("bob", ELM, AnswerOptions(sampling=GREEDY), conversation_id="b")
    assert first.example_ids == (corrected,)
    assert requests[0][1:] == [("user", OAK), ("assistant", "30 m."), ("user", ELM)]
    _, messages = workspace.store.shown_prompt(str(first.answer_id), "bob")
    assert "30 m." not in str(messages)
    *_, again = chat.regenerate("bob", str(first.answer_id), sampling=GREEDY)
    assert (again.text, requests[1]) == (first.text, requests[0])


@pytest.mark.parametrize("gone", ["withdrawn", "refused", "forgotten", "removed by who asked"])
def test_a_shared_example_that_is_gone_is_shown_with_no_answer_any_more(
    chat: Chat, service: Service, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    corrected = correct(chat, service, OAK, "30 m.")
    workspace = service.workspace
    workspace.shared_examples.approve(corrected)
    *_, first = chat.ask("bob", ELM, AnswerOptions(sampling=GREEDY), conversation_id="b")
    if gone == "withdrawn":
        workspace.shared_examples.withdraw(corrected)
    elif gone == "refused":
        workspace.curation.set_consent("ann", False)
    elif gone == "forgotten":
        workspace.forgetting.forget("ann")
    else:
        workspace.feedback_examples.remove("bob", corrected)
    requests = shown(service, monkeypatch)
    *_, again = chat.regenerate("bob", str(first.answer_id), sampling=GREEDY)
    *_, other = chat.ask("bob", ELM, AnswerOptions(sampling=GREEDY), conversation_id="b2")
    assert again.example_ids == other.example_ids == ()
    assert "30 m." not in str(requests)
