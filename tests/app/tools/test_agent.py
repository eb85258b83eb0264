"""Answers that call tools: the loop, its limits, and Stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from langchain_core.tools import StructuredTool

from app.answering.answer_options import AnswerOptions
from app.service import Service
from app.tools.agent import Agent
from app.tools.called import CalledTool
from app.tools.running import ToolLimits
from app.tools.toolbox import ToolOffer
from engine.errors import Overloaded
from engine.messages import Message, tools_of
from engine.prompts.calls.formats import HERMES
from engine.request import Failed, Finished, GenerationRequest, StreamEvent
from engine.tools import Tool, WrittenCall
from tests.app.tools.test_tools_in_chat import CALL, CALLED, last_of, switch_on
from tests.support.scripted_engine import ScriptedEngine
from tests.support.waiting import wait_until

QUESTION = (
    Message("system", "Be brief.", tools=(Tool("double", "Doubles."), Tool("wait", "Waits."))),
    Message("user", "What is twice 21?"),
)


def calls(name: str, arguments: str = "{}") -> str:
    return HERMES.write([WrittenCall(name, arguments)])


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    yield engine
    engine.close()


def offer_of(**tools: Callable[..., str]) -> ToolOffer:
    made = {
        name: StructuredTool.from_function(function, name=name, description=f"{name}s.").invoke
        for name, function in tools.items()
    }
    functions = tuple(Tool(name, f"{name}s.") for name in tools)
    return ToolOffer(functions, made, ToolLimits(3, 0.5, 100))


def double(number: int) -> str:
    return str(2 * number)


def run(engine: ScriptedEngine, offer: ToolOffer) -> tuple[Agent, list[StreamEvent]]:
    agent = Agent(engine, GenerationRequest(QUESTION, adapter="a", user="ann"), offer)
    return agent, list(agent)


def test_the_model_is_asked_again_with_the_result_of_its_call(engine: ScriptedEngine) -> None:
    engine.answers = iter(["I compute. " + calls("double", '{"number": 21}'), "It is 42."])
    agent, events = run(engine, offer_of(double=double))
    assert agent.called == (CalledTool("double", '{"number": 21}', "42", "done"),)
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.text) == ("stop", "I compute.\n\nIt is 42.")
    first, second = engine.requests
    assert first.messages == QUESTION
    assert [each.role for each in second.messages] == ["system", "user", "assistant", "tool"]
    said, result = second.messages[2:]
    assert (said.content, said.calls[0].name, result.content) == ("I compute.", "double", "42")
    assert [each.name for each in tools_of(second.messages)] == ["double"]
    assert {(r.adapter, r.user, r.sampling) for r in engine.requests} == {
        ("a", "ann", first.sampling)
    } | {("a", "ann", second.sampling)}


def test_each_step_is_seen_while_it_runs(engine: ScriptedEngine) -> None:
    engine.answers = iter([calls("double", '{"number": 1}'), "Two."])
    agent = Agent(engine, GenerationRequest(QUESTION), offer_of(double=double))
    seen = []
    for _ in agent:
        if [each.status for each in agent.called] not in seen:
            seen.append([each.status for each in agent.called])
    assert seen == [[], ["running"], ["done"]]


def test_after_its_last_step_the_model_is_offered_nothing(engine: ScriptedEngine) -> None:
    again = calls("double", '{"number": 1}')
    engine.answers = iter([again, again, again, "Enough."])
    agent, events = run(engine, offer_of(double=double))
    assert len(agent.called) == 3
    assert [bool(tools_of(each.messages)) for each in engine.requests] == [True] * 3 + [False]
    assert isinstance(events[-1], Finished)
    assert events[-1].text == "Enough."


@pytest.mark.parametrize(
    ("arguments", "status", "result"),
    [
        ('{"number": 1}', "done", "x" * 100 + "\n… (cut at 100 characters)"),
        ('{"number": "many"}', "failed", "The arguments do not fit: number:"),
        ("{}", "failed", "The arguments do not fit: number: Field required"),
    ],
)
def test_a_result_is_cut_and_arguments_that_do_not_fit_are_told(
    engine: ScriptedEngine, arguments: str, status: str, result: str
) -> None:
    def long(number: int) -> str:
        return "x" * 1_000 * number

    engine.answers = iter([calls("long", arguments), "So."])
    agent, _ = run(engine, offer_of(long=long))
    (called,) = agent.called
    assert called.status == status
    assert called.result.startswith(result)


def test_a_tool_that_fails_or_hangs_ends_no_answer(engine: ScriptedEngine) -> None:
    def fail() -> str:
        raise RuntimeError("its own words")

    released = threading.Event()

    def wait() -> str:
        released.wait(30)
        return ""

    engine.answers = iter([calls("fail"), calls("wait"), calls("unknown"), "It does not work."])
    begun = time.monotonic()
    agent, events = run(engine, offer_of(fail=fail, wait=wait))
    assert time.monotonic() - begun < 5
    released.set()
    assert [(each.status, each.result) for each in agent.called] == [
        ("failed", "The tool failed; the server's log says where."),
        ("failed", "The tool did not answer within 0.5 s."),
        ("failed", "There is no such tool."),
    ]
    assert isinstance(events[-1], Finished)
    assert events[-1].text == "It does not work."


def test_stop_ends_an_answer_whose_tool_hangs(engine: ScriptedEngine) -> None:
    released = threading.Event()

    def wait() -> str:
        released.wait(30)
        return ""

    offer = replace(offer_of(wait=wait), limits=ToolLimits(timeout_seconds=60))
    engine.answers = iter([calls("wait"), "never said"])
    agent = Agent(engine, GenerationRequest(QUESTION), offer)
    events: list[StreamEvent] = []
    reading = threading.Thread(target=lambda: events.extend(agent))
    reading.start()
    wait_until(lambda: bool(agent.called))
    agent.cancel()
    reading.join(5)
    released.set()
    assert not reading.is_alive()
    assert [each.status for each in agent.called] == ["stopped"]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "cancelled"
    assert len(engine.requests) == 1


def test_thoughts_of_every_step_are_kept_apart_from_the_words(engine: ScriptedEngine) -> None:
    first = "<think>I need it.</think>" + calls("double", '{"number": 2}')
    engine.answers = iter([first, "<think>Good.</think>Four."])
    agent, events = run(engine, offer_of(double=double))
    assert agent.text == "<think>I need it.\n\nGood.</think>Four."
    assert isinstance(events[-1], Finished)


def test_a_full_queue_is_told_before_anything_begins() -> None:
    engine = ScriptedEngine(max_rows=1, max_queue=0, token_seconds=0.01)
    engine.stand_still()
    engine.submit(GenerationRequest(QUESTION))
    with pytest.raises(Overloaded):
        Agent(engine, GenerationRequest(QUESTION), offer_of(double=double))
    engine.close()


def test_an_engine_that_breaks_off_fails_the_answer_with_what_was_said() -> None:
    engine = ScriptedEngine(token_seconds=0.01)
    engine.answers = iter(["Well. " + calls("double", '{"number": 2}'), "w " * 500])
    agent = Agent(engine, GenerationRequest(QUESTION), offer_of(double=double))
    events: list[StreamEvent] = []
    for event in agent:
        events.append(event)
        if len(engine.requests) == 2:
            engine.break_off("no power")
    engine.close()
    last = events[-1]
    assert isinstance(last, Failed)
    assert last.text.startswith("Well.")
    assert [each.result for each in agent.called] == ["4"]


def test_calls_of_a_real_engine_are_read_and_run(
    service: Service, model_says: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says the same at each step, so that it calls until its steps are used up."""
    toolbox = service.workspace.toolbox
    switch_on(toolbox, monkeypatch, "calculator")
    toolbox.allow("ann", "calculator", True)
    model_says(CALL)
    sampling = service.chat.sampling(max_new_tokens=200)
    last = last_of(
        service.chat.ask("ann", "6 * 7?", AnswerOptions(sampling=sampling), conversation_id="c")
    )
    assert last.status == "done"
    assert [each.as_row() for each in last.called] == [CALLED] * toolbox.limits.max_steps
