"""One chat turn: what is stored, and when."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from app.answering.answer_request import AnswerRequest
from app.answering.conversation import TRIMMED, Chat
from app.answering.fixed_answer import FixedAnswer
from app.service import Service
from engine.errors import InvalidText, Overloaded, PromptTooLong, StorageFull, UnknownId
from engine.messages import Message
from engine.prompts.reasoning import Reasoned, untagged
from engine.request import Finished, SamplingParams, StreamEvent, TextDelta
from tests.app.answering.asking import GREEDY, ask, asked
from tests.helpers import make_bundle
from tests.support.waiting import wait_until


def test_an_answer_is_stored_from_its_start_and_whole_before_its_end_is_told(
    chat: Chat, service: Service
) -> None:
    store = service.workspace.store
    shown = []
    for update in asked(chat, "Say hello."):
        assert update.answer_id is not None
        shown.append((update, store.answer(update.answer_id, "ann")))
    assert not shown[0][0].text
    end, stored = shown[-1]
    assert (end.status, stored.status, stored.text) == ("done", "done", end.text)
    assert len(shown) > 3


def test_words_are_shown_as_soon_as_the_engine_has_written_them(
    chat: Chat, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[StreamEvent] = []

    class Written(FixedAnswer):
        def __iter__(self) -> Iterator[StreamEvent]:
            events = TextDelta("one "), TextDelta("two"), Finished("stop", "one two", 3, 2)
            for event in events:
                taken.append(event)
                yield event

    monkeypatch.setattr(service.engine, "submit_many", lambda _requests: [Written("")])
    seen = [(update.text, len(taken)) for update in asked(chat, "Count.")]
    assert seen == [("", 0), ("one ", 1), ("one two", 2), ("one two", 3)]


def test_a_turn_carries_all_that_made_it(chat: Chat, service: Service) -> None:
    bundle = make_bundle(service.workspace.home.bundles, service.workspace.base)
    service.workspace.registry.add(bundle, {"verdict": "better"})
    service.workspace.releases.promote(bundle)
    wait_until(lambda: service.slots.live == bundle)
    done = ask(chat, "Say hello.", mode="few-shot", sampling=replace(GREEDY, seed=7))
    stored = service.workspace.store.answer(str(done.answer_id), "ann")
    turn = service.workspace.store.turn_of(str(done.answer_id), "ann")
    assert stored.adapter_digest == bundle
    assert stored.base_digest == service.workspace.base.digest
    assert (turn.mode, stored.seed, stored.completion_tokens) == ("few-shot", 7, 16)
    assert stored.sampling["max_new_tokens"] == 16
    assert turn.template_hash.startswith("sha256:")


def test_the_next_question_sees_the_history_and_a_regeneration_the_same_prompt(
    chat: Chat, service: Service
) -> None:
    first = ask(chat, "Say hello.")
    second = ask(chat, "And now?", parent_answer_id=first.answer_id)
    *_, again = chat.regenerate("ann", str(second.answer_id), sampling=GREEDY)
    assert again.text == second.text
    assert again.answer_id != second.answer_id
    turn, messages = service.workspace.store.shown_prompt(str(again.answer_id), "ann")
    assert turn.id == service.workspace.store.turn_of(str(second.answer_id), "ann").id
    assert [m.content for m in messages[1:]] == ["Say hello.", first.text, "And now?"]


def test_asking_again_is_noted_on_the_first_answer_unless_it_is_to_compare(
    chat: Chat, service: Service
) -> None:
    first = ask(chat, "Say hello.")
    *_, _ = chat.regenerate("ann", str(first.answer_id), sampling=GREEDY, to_compare=True)
    assert service.workspace.store.counts()["regenerations"] == 0
    *_, _ = chat.regenerate("ann", str(first.answer_id), sampling=GREEDY)
    assert service.workspace.store.counts()["regenerations"] == 1
    with service.workspace.database.read() as connection:
        noted = connection.exec_driver_sql("SELECT answer_id FROM events").scalar_one()
    assert noted == first.answer_id


def test_a_refused_regeneration_notes_nothing(
    chat: Chat, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(chat, "Say hello.")

    def full(_request: object) -> None:
        raise Overloaded("the queue is full", retry_after_seconds=1)

    monkeypatch.setattr(service.engine, "submit_many", full)
    with pytest.raises(Overloaded):
        chat.regenerate("ann", str(first.answer_id))
    assert service.workspace.store.counts()["regenerations"] == 0


def test_stop_keeps_what_was_made(chat: Chat, service: Service) -> None:
    answer = asked(chat, "Say hello.", sampling=replace(GREEDY, max_new_tokens=500))
    for update in answer:
        if len(update.text) > 5:
            answer.cancel()
    assert update.status == "stopped"
    stored = service.workspace.store.answer(str(update.answer_id), "ann")
    assert (stored.status, stored.text, stored.complete) == ("stopped", update.text, False)


def test_a_reader_who_goes_away_leaves_a_stopped_answer_and_a_free_row(
    chat: Chat, service: Service
) -> None:
    long = replace(GREEDY, max_new_tokens=500)
    updates = iter(asked(chat, "Say hello.", sampling=long))
    update = next(updates)
    assert isinstance(updates, Generator)
    updates.close()
    assert service.workspace.store.answer(str(update.answer_id), "ann").status == "stopped"
    assert ask(chat, "Say hello.").status == "done"
    assert service.engine.active_streams <= 1  # a finished row leaves with the next step


def test_a_chain_of_thought_is_kept_apart(
    chat: Chat, service: Service, model_says: Callable[[str], None]
) -> None:
    model_says("One and one.\nAnswer: two")
    done = ask(chat, "Add one and one.", mode="cot", sampling=SamplingParams(max_new_tokens=99))
    assert (done.thought, done.text) == ("One and one.", "two")
    stored = service.workspace.store.answer(str(done.answer_id), "ann")
    assert (stored.thought, stored.text, stored.complete) == ("One and one.", "two", True)


THOUGHTFUL = "<think>\nOne and one.\n</think>\n\nIt is <b>two</b>."


@pytest.mark.parametrize("mode", ["plain", "few-shot", "cot"])
def test_a_think_block_is_kept_apart_in_every_mode_and_not_shown_to_the_model_again(
    chat: Chat, service: Service, model_says: Callable[[str], None], mode: str
) -> None:
    model_says(THOUGHTFUL)
    more: Any = {"mode": mode, "sampling": SamplingParams(max_new_tokens=99)}
    updates = [*asked(chat, "Add one and one.", **more)]
    done = updates[-1]
    assert (done.thought, done.text) == ("One and one.", "It is <b>two</b>.")
    assert all(done.text.startswith(update.text) for update in updates)
    assert all(done.thought.startswith(update.thought) for update in updates)
    store = service.workspace.store
    stored = store.answer(str(done.answer_id), "ann")
    assert (stored.thought, stored.text) == (THOUGHTFUL.split("\n\n")[0], "It is <b>two</b>.")
    *_, again = chat.regenerate("ann", str(done.answer_id), sampling=more["sampling"])
    assert (again.thought, again.text) == (done.thought, done.text)
    second = ask(chat, "And now?", parent_answer_id=done.answer_id, **more)
    _, messages = store.shown_prompt(str(second.answer_id), "ann")
    assert [m.content for m in messages if "One and one." in m.content] == []
    assert messages[-2].content == "It is <b>two</b>."


def test_a_thought_that_was_cut_is_shown_as_unfinished_and_nothing_is_learnt_from_it(
    chat: Chat, service: Service, model_says: Callable[[str], None]
) -> None:
    model_says(THOUGHTFUL)
    done = ask(chat, "Add one and one.", sampling=SamplingParams(max_new_tokens=12))
    assert (done.thought, done.text) == ("One and", "")
    store = service.workspace.store
    stored = store.answer(str(done.answer_id), "ann")
    assert (stored.thought, stored.text, stored.complete) == (
        "<think>\nOne and\n</think>",
        "",
        False,
    )
    store.vote(str(done.answer_id), "ann", 1)
    service.workspace.training_set.refresh(reestimate=True)
    _, examples = service.workspace.training_set.load_examples()
    assert [aside.reason for aside in examples.set_aside] == ["empty or aborted answer"]
    assert not examples.unpaired and not examples.demonstrations


def test_what_a_dead_process_leaves_of_a_thought_is_no_answer(
    chat: Chat, service: Service, model_says: Callable[[str], None], monkeypatch: Any
) -> None:
    monkeypatch.setattr("app.answering.answering.PARTIAL_SAVE_SECONDS", 0.0)
    model_says(THOUGHTFUL)
    updates = asked(chat, "Add one and one.")
    update = next(update for update in updates if update.thought)
    service.workspace.store.abort_unfinished()
    left = service.workspace.store.answer(str(update.answer_id), "ann")
    assert (left.status, left.text) == ("aborted", "")
    assert untagged(left.thought).startswith("O")


@pytest.mark.parametrize("question", ["", "  \n", "\x00", "\ud800", "a" * 20_001])
def test_text_that_cannot_be_asked_is_refused_and_nothing_is_stored(
    chat: Chat, service: Service, question: str
) -> None:
    with pytest.raises(InvalidText):
        ask(chat, question)
    assert service.workspace.store.counts()["turns"] == 0


@pytest.mark.parametrize(
    "question", ["👩‍👩‍👧‍👦 family", "\u202eright to left", "bell \x07", "你好"]
)
def test_odd_but_real_text_is_kept_as_it_came(chat: Chat, service: Service, question: str) -> None:
    done = ask(chat, question)
    assert service.workspace.store.history(done.answer_id, "ann")[0].content == question


def test_an_old_beginning_is_left_out_and_said_and_the_system_prompt_kept(
    chat: Chat, service: Service
) -> None:
    parent = None
    for number in range(6):
        done = ask(chat, f"{number} " + "water " * 350, parent_answer_id=parent)
        parent = done.answer_id
    assert done.note == TRIMMED
    _, messages = service.workspace.store.shown_prompt(str(parent), "ann")
    assert messages[0].role == "system"
    assert not any(m.content.startswith("0 water") for m in messages)
    with pytest.raises(PromptTooLong):
        ask(chat, "water " * 3_000)


def test_a_foreign_parent_is_unknown(chat: Chat) -> None:
    done = ask(chat, "Say hello.")
    with pytest.raises(UnknownId):
        chat.ask("bob", "Mine?", conversation_id="c", parent_answer_id=done.answer_id)


def test_when_nothing_can_be_saved_the_chat_goes_on_and_says_so(
    chat: Chat, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StorageFull("not saved")

    expected = ask(chat, "Say hello.").text
    monkeypatch.setattr(service.workspace.store, "begin_answer", full)
    done = ask(chat, "Say hello.")
    assert (done.text, done.answer_id) == (expected, None)
    assert "could not be saved" in done.note


def test_answers_left_streaming_by_a_dead_process_are_aborted_at_the_next_start(
    chat: Chat, service: Service
) -> None:
    updates = iter(asked(chat, "Say hello."))
    answer_id = str(next(updates).answer_id)
    assert service.workspace.store.abort_unfinished() == 1
    assert service.workspace.store.answer(answer_id, "ann").status == "aborted"


@pytest.mark.parametrize("prefill", ["<", " ", "\n", "<th", "The "])
def test_a_continued_answer_is_shown_from_where_it_goes_on_and_stored_whole(prefill: str) -> None:
    request = AnswerRequest((Message("user", "Hi."),), SamplingParams(), str, prefill=prefill)
    assert request.split("note>hi", finished=False).answer == "note>hi"
    assert request.split("note>hi", finished=True) == Reasoned("", "note>hi")
    assert request.split_whole("note>hi") == Reasoned("", prefill + "note>hi")
