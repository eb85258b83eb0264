"""Tools in the chat: each person's own switches, what is stored, and what is learnt from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

import pytest

from app.answering.answer_options import AnswerOptions
from app.answering.answering import AnswerUpdate, RunningAnswer
from app.tools.toolbox import Caller, Toolbox, built_in_tools
from engine.errors import UnknownId
from engine.messages import tools_of
from engine.prompts.calls.formats import HERMES
from engine.tools import WrittenCall
from feedback_store.examples.rules import RESTS_ON_TOOLS
from feedback_store.personal.personal_data import personal_data
from feedback_store.personal.tool_consents import ToolConsents
from tests.app.conftest import Played

CALL = HERMES.write([WrittenCall("calculator", '{"expression": "6*7"}')])
CALLED = {
    "name": "calculator",
    "arguments": '{"expression": "6*7"}',
    "result": "42",
    "status": "done",
}


def switch_on(toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Switch built-in tools on, as the operator's setting does."""
    made = {tool.function.name: tool for tool in built_in_tools(names)}
    monkeypatch.setattr(toolbox, "_built_in", names)
    monkeypatch.setattr(toolbox, "_own_tools", made)


@pytest.fixture
def toolbox(api_stage: Played, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toolbox]:
    """The chat's tools: a calculator, which Ann lets her answers call, and a clock."""
    toolbox = api_stage.service.workspace.toolbox
    switch_on(toolbox, monkeypatch, "calculator", "clock")
    toolbox.allow("ann", "calculator", True)
    yield toolbox
    toolbox.allow("ann", "calculator", False)
    api_stage.engine.answers, api_stage.engine.says = iter(()), ""


def last_of(answer: RunningAnswer) -> AnswerUpdate:
    *_, last = answer
    return last


def ask(stage: Played, *says: str, user: str = "ann", **options: Any) -> AnswerUpdate:
    stage.engine.answers = iter(says)
    question, asked = "What is 6 times 7?", AnswerOptions(**options)
    return last_of(stage.service.chat.ask(user, question, asked, conversation_id=f"c-{user}"))


def stored_calls(stage: Played, answer: AnswerUpdate, user: str = "ann") -> list[Mapping[str, Any]]:
    return stage.service.workspace.store.answer(str(answer.answer_id), user).tool_calls


def test_an_answer_calls_the_tools_that_its_person_allows(
    api_stage: Played, toolbox: Toolbox
) -> None:
    last = ask(api_stage, CALL, "It is 42.")
    assert (last.status, last.text) == ("done", "It is 42.")
    assert [each.as_row() for each in last.called] == [CALLED]
    assert stored_calls(api_stage, last) == [CALLED]
    first, second = api_stage.engine.requests[-2:]
    assert [tool.name for tool in tools_of(first.messages)] == ["calculator"]
    assert second.messages[-1].content == "42"
    _, prompt = api_stage.service.workspace.store.shown_prompt(str(last.answer_id), "ann")
    assert prompt == first.messages  # with the offer, as the model saw it


def test_nobody_else_is_offered_them(api_stage: Played, toolbox: Toolbox) -> None:
    last = ask(api_stage, CALL, user="bob")
    assert (last.text, last.called) == (CALL, ())  # the words of a model that was offered nothing
    assert tools_of(api_stage.engine.requests[-1].messages) == ()
    assert toolbox.offer(Caller("bob")) == (None, "")
    with pytest.raises(UnknownId, match="no tool 'documents' is on"):
        toolbox.allow("ann", "documents", True)


def test_a_tool_that_changed_since_is_asked_about_again(
    api_stage: Played, toolbox: Toolbox
) -> None:
    ToolConsents(api_stage.service.workspace.database).allow("ann", "calculator", "sha256:old")
    assert toolbox.offer(Caller("ann")) == (None, "")


@pytest.mark.parametrize("options", [{"mode": "cot"}, {"mode": "self-consistency"}])
def test_modes_that_think_first_are_offered_none(
    api_stage: Played, toolbox: Toolbox, options: dict[str, Any]
) -> None:
    api_stage.engine.says = "Answer: 42"
    ask(api_stage, **options)
    assert tools_of(api_stage.engine.requests[-1].messages) == ()


def test_another_answer_calls_again_and_only_what_is_still_allowed(
    api_stage: Played, toolbox: Toolbox
) -> None:
    chat, first = api_stage.service.chat, ask(api_stage, CALL, "It is 42.")
    api_stage.engine.answers = iter([CALL, "42."])
    again = last_of(chat.regenerate("ann", str(first.answer_id), zone=UTC))
    assert [each.result for each in again.called] == ["42"]
    toolbox.allow("ann", "calculator", False)
    api_stage.engine.answers = iter(["Forty-two."])
    third = last_of(chat.regenerate("ann", str(first.answer_id)))
    assert (third.text, third.called) == ("Forty-two.", ())
    assert tools_of(api_stage.engine.requests[-1].messages) == ()


def test_a_changed_and_a_continued_answer_rest_on_the_same_calls(
    api_stage: Played, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, first = api_stage.service.chat, ask(api_stage, CALL, "It is 42.")
    api_stage.engine.answers = iter(["42!"])
    changed = last_of(chat.change("ann", str(first.answer_id), "shorter", "Shorter."))
    assert stored_calls(api_stage, changed) == [CALLED]
    assert tools_of(api_stage.engine.requests[-1].messages) == ()

    cut = ask(api_stage, CALL, "It is ", sampling=chat.sampling(max_new_tokens=2_000))
    store = api_stage.service.workspace.store
    store.finish_answer(str(cut.answer_id), status="stopped", text="It is ")
    api_stage.engine.answers = iter(["forty-two."])
    longer = last_of(chat.continue_answer("ann", str(cut.answer_id)))
    assert longer.text == "It is forty-two."
    assert stored_calls(api_stage, longer) == [CALLED]
    request = api_stage.engine.requests[-1]
    assert [each.role for each in request.messages[-2:]] == ["assistant", "tool"]
    assert request.messages[-1].content == "42"


def test_nothing_is_learnt_from_an_answer_that_rests_on_results(
    api_stage: Played, toolbox: Toolbox
) -> None:
    workspace = api_stage.service.workspace
    liked, corrected = ask(api_stage, CALL, "It is 42."), ask(api_stage, CALL, "It is 43.")
    workspace.store.vote(str(liked.answer_id), "ann", 1)
    workspace.store.correct(str(corrected.answer_id), "ann", "It is 42, I think.")
    plain = ask(api_stage, "Hello there, I am here to help.")
    workspace.store.vote(str(plain.answer_id), "ann", 1)
    workspace.training_set.refresh()
    _, examples = workspace.training_set.load_examples()
    learnt = {side.answer_id for example in examples.every for side in example.sides}
    assert plain.answer_id in learnt
    assert not learnt & {liked.answer_id, corrected.answer_id}
    reasons = {a: item.reason for item in examples.set_aside for a in item.answer_ids}
    assert reasons[str(liked.answer_id)] == reasons[str(corrected.answer_id)] == RESTS_ON_TOOLS


def test_a_temporary_chat_calls_and_stores_nothing(api_stage: Played, toolbox: Toolbox) -> None:
    api_stage.engine.answers = iter([CALL, "It is 42."])
    last = last_of(api_stage.service.chat.ask_unstored("ann", [], "What is 6 times 7?"))
    assert [each.as_row() for each in last.called] == [CALLED]
    assert last.answer_id is None


def test_the_switches_are_the_persons_data(api_stage: Played, toolbox: Toolbox) -> None:
    workspace = api_stage.service.workspace
    rows = personal_data(workspace.database, "ann")["tools_allowed"]
    assert [row["tool"] for row in rows] == ["calculator"]
    workspace.forgetting.forget("ann")
    assert toolbox.allowed("ann") == set()
