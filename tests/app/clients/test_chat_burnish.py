"""`ChatBurnish` says the same in process and by URL: whole, streamed, with tools, as values."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel as PydanticModel

from engine.errors import DeadlineExceeded, EngineFailure, InvalidInput, Overloaded, PromptTooLong
from engine.langchain import ChatBurnish
from engine.messages import Message
from engine.prompts.calls.formats import HERMES
from engine.request import Grammar, SamplingParams
from engine.tools import ToolCall, WrittenCall
from tests.app.conftest import Played
from tests.app.stored import answer as stored_answer
from tests.support.waiting import wait_until

PLACES = ("in process", "by URL")


class Weather(PydanticModel):
    """The weather of a day."""

    sky: Literal["clear", "grey"]
    windy: bool


@tool
def warm_days(city: Literal["Rome", "Oslo"], windy: bool) -> str:
    """Count the warm days of a city."""
    return f"{city}: {windy}"


@tool
def clock() -> str:
    """Tell the time."""
    return "noon"


TWO_CALLS = HERMES.write(
    [WrittenCall("warm_days", '{"city": "Rome", "windy": true}'), WrittenCall("clock", "{}")]
)


@pytest.fixture(params=PLACES)
def scripted(request: pytest.FixtureRequest, played: Played) -> ChatBurnish:
    """A chat model whose engine says what `played.engine.says`."""
    if request.param == "in process":
        return ChatBurnish(engine=played.engine, releases=played.service.slots)
    return ChatBurnish(base_url=played.url)


def added(chunks: list[Any]) -> AIMessageChunk:
    whole = chunks[0] + chunks[1:]
    assert isinstance(whole, AIMessageChunk)
    return whole


async def streamed(model: Any, asked: Any) -> list[AIMessageChunk]:
    return [chunk async for chunk in model.astream(asked)]


# Answers


def test_all_ways_of_asking_give_the_same_answer(played: Played, scripted: ChatBurnish) -> None:
    played.engine.says = "The sea is wide."
    chain = ChatPromptTemplate([("system", "Be brief."), ("human", "{question}")]) | scripted
    asked = {"question": "What is the sea?"}
    answer = chain.invoke(asked)
    assert isinstance(answer, AIMessage)
    assert answer.content == "The sea is wide."
    pieces = [chunk.text for chunk in chain.stream(asked)]
    assert "".join(pieces) == answer.content
    assert len(pieces) > 4
    assert [each.text for each in chain.batch([asked, asked])] == [answer.content] * 2
    assert asyncio.run(chain.ainvoke(asked)).text == answer.content
    assert added(asyncio.run(streamed(chain, asked))).text == answer.content
    assert set(played.engine.requests[-1].messages) == {
        Message("system", "Be brief."),
        Message("user", "What is the sea?"),
    }


def test_an_answer_says_how_it_ended_and_what_it_took(
    played: Played, scripted: ChatBurnish
) -> None:
    played.engine.says = "one two three"
    scripted = scripted.model_copy(update={"logprobs": True, "top_logprobs": 2})
    for answer in (scripted.invoke("a b"), added(list(scripted.stream("a b")))):
        assert answer.usage_metadata == {
            "input_tokens": 2,
            "output_tokens": 4,  # with the end
            "total_tokens": 6,
            "input_token_details": {"cache_read": 1},
        }
        metadata = answer.response_metadata
        assert metadata["finish_reason"] == "stop"
        assert metadata["model_name"] == "live"
        tokens = metadata["logprobs"]["content"]
        assert [token["token"] for token in tokens] == ["one ", "two ", "three"]
        assert tokens[1]["logprob"] == -0.5
        assert [top["token"] for top in tokens[1]["top_logprobs"]] == ["w1 ", "w2 "]
    assert scripted.invoke("a b", max_tokens=2).response_metadata["finish_reason"] == "length"


def test_a_server_s_answer_can_be_voted_on(played: Played) -> None:
    played.engine.says = "The sea is wide."
    answer = ChatBurnish(base_url=f"{played.url}/v1/").invoke("What is the sea?")
    kept = stored_answer(played.service, answer.response_metadata["answer_id"])
    assert kept["text"] == "The sea is wide."


def test_a_thought_stands_beside_the_answer_and_is_not_shown_again(
    played: Played, scripted: ChatBurnish
) -> None:
    played.engine.says = "<think>\nTwo and two.\n</think>\n\nFour."
    answer = scripted.invoke("2 + 2?")
    assert answer.content == "Four."
    assert answer.additional_kwargs["reasoning_content"] == "Two and two."
    whole = added(list(scripted.stream("2 + 2?")))
    assert (whole.text, whole.additional_kwargs) == ("Four.", answer.additional_kwargs)
    in_blocks = AIMessage(content_blocks=answer.content_blocks)
    for earlier in (answer, in_blocks):
        scripted.invoke(["2 + 2?", earlier, "Are you sure?"])
        assert played.engine.requests[-1].messages[1] == Message("assistant", "Four.")


def test_an_answer_that_is_given_in_part_is_continued(
    played: Played, scripted: ChatBurnish
) -> None:
    played.engine.says = "wide."
    assert scripted.invoke([HumanMessage("The sea?"), AIMessage("It is ")]).content == "wide."
    assert played.engine.requests[-1].prefill == "It is "


# Options


@pytest.mark.integration
def test_options_reach_the_engine_by_their_names(played: Played, scripted: ChatBurnish) -> None:
    options: dict[str, Any] = {
        "temperature": 0.3,
        "top_p": 0.5,
        "top_k": 4,
        "min_p": 0.1,
        "max_tokens": 3,
        "seed": 2**63 + 5,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "repetition_penalty": 1.5,
        "logit_bias": {7: -1.0},
        "timeout": 30.0,
    }
    bound = scripted.model_copy(update=options)
    bound.invoke("hi", stop=["x"], temperature=0.0)
    asked = played.engine.requests[-1]
    assert asked.timeout_seconds == 30
    assert asked.sampling == SamplingParams(
        temperature=0,
        top_p=0.5,
        top_k=4,
        min_p=0.1,
        max_new_tokens=3,
        seed=5,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        repetition_penalty=1.5,
        logit_bias=((7, -1.0),),
        stop=("x",),
    )
    ChatBurnish(**scripted_place(scripted), stop="y", enable_thinking=False).invoke("hi")
    assert played.engine.requests[-1].sampling.stop == ("y",)
    assert played.engine.requests[-1].thinking is False


def scripted_place(model: ChatBurnish) -> dict[str, Any]:
    return {name: getattr(model, name) for name in ("engine", "releases", "base_url")}


# Tools


def test_tools_are_offered_and_calls_are_parts_of_the_message(
    played: Played, scripted: ChatBurnish
) -> None:
    played.engine.says = f"I look.\n{TWO_CALLS}"
    bound = scripted.bind_tools([warm_days, clock])
    for answer in (bound.invoke("Where?"), added(list(bound.stream("Where?")))):
        assert answer.content == "I look."
        assert [(call["name"], call["args"]) for call in answer.tool_calls] == [
            ("warm_days", {"city": "Rome", "windy": True}),
            ("clock", {}),
        ]
        assert len({call["id"] for call in answer.tool_calls}) == 2
        assert answer.response_metadata["finish_reason"] == "tool_calls"
    offered = played.engine.requests[-1].messages[0].tools
    assert [each.name for each in offered] == ["warm_days", "clock"]
    assert offered[0].description == "Count the warm days of a city."
    results = [
        ToolMessage(f"result {call['id']}", tool_call_id=call["id"]) for call in answer.tool_calls
    ]
    bound.invoke([HumanMessage("Where?"), answer, *results])
    _, _, said, *told = played.engine.requests[-1].messages
    assert said.calls[0] == ToolCall(
        answer.tool_calls[0]["id"] or "", "warm_days", '{"city": "Rome", "windy": true}'
    )
    assert [each.content for each in told] == [each.content for each in results]


def test_a_call_that_was_cut_off_is_invalid(played: Played, scripted: ChatBurnish) -> None:
    played.engine.says = TWO_CALLS
    answer = scripted.bind_tools([warm_days]).invoke("Where?", max_tokens=5)
    assert answer.tool_calls == []
    (call,) = answer.invalid_tool_calls
    assert call["name"] == "warm_days"
    assert '{"city": "Rome", "windy": true}'.startswith(call["args"] or "?")


@pytest.mark.integration
@pytest.mark.parametrize("choice", ["any", True, "required"])
def test_a_call_can_be_demanded(played: Played, scripted: ChatBurnish, choice: Any) -> None:
    scripted.bind_tools([warm_days, clock], tool_choice=choice).invoke("Where?")
    asked = played.engine.requests[-1].sampling.tool_choice
    assert asked is not None
    assert (asked.mode, asked.name) == ("required", None)


# Values


def test_json_mode_takes_any_object_and_tells_of_a_wrong_one(
    played: Played, scripted: ChatBurnish
) -> None:
    chain = scripted.with_structured_output(Weather, method="json_mode", include_raw=True)
    played.engine.says = '{"sky": "grey", "windy": false}'
    assert chain.invoke("JSON, please.")["parsed"] == Weather(sky="grey", windy=False)
    assert played.engine.requests[-1].sampling.grammar == Grammar(
        "json_schema", '{"type": "object"}'
    )
    played.engine.says = '{"sky": "green"}'
    wrong = chain.invoke("JSON, please.")
    assert wrong["parsed"] is None
    assert "sky" in str(wrong["parsing_error"])


def test_a_schema_has_all_its_properties_and_no_others_unless_told(
    played: Played, scripted: ChatBurnish
) -> None:
    class Loose(PydanticModel):
        """Anything."""

        one: int = 1

    played.engine.says = '{"one": 2}'
    for strict, closed in ((None, True), (True, True), (False, False)):
        scripted.with_structured_output(Loose, strict=strict).invoke("One?")
        grammar = played.engine.requests[-1].sampling.grammar
        assert grammar is not None
        assert ('"additionalProperties": false' in grammar.text) is closed
        assert ('"required": ["one"]' in grammar.text) is closed


# What is refused, and what fails


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda m: m.invoke("hi", n=2), "n: ChatBurnish has no such option"),
        (lambda m: m.invoke("hi", temperature="hot"), "temperature: "),
        (lambda m: m.invoke("hi", temperature=-1), "temperature must lie in"),
        (lambda m: m.invoke("hi", top_logprobs=2), "top_logprobs needs logprobs"),
        (lambda m: m.bind_tools([clock], tool_choice="cook"), "no tool has the name cook"),
        (
            lambda m: m.bind_tools([clock]).invoke("hi", response_format={"type": "json_object"}),
            "tools: an answer that follows a response format is offered none",
        ),
        (
            lambda m: m.invoke(
                [HumanMessage([{"type": "image", "base64": "aGk=", "mime_type": "image/png"}])]
            ),
            "messages.0.content.0: a part of type 'image_url' is not supported",
        ),
        (lambda m: m.invoke("\ud800"), "lone surrogate"),
        (lambda m: m.invoke([SystemMessage("hi")]), "must end with a user message"),
        (lambda m: m.with_structured_output(Weather, method="xml"), "method must be one of"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(
    scripted: ChatBurnish, asked: Any, said: str
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)):
        asked(scripted)


def test_errors_are_those_of_the_engine(played: Played, scripted: ChatBurnish) -> None:
    with pytest.raises(PromptTooLong, match="no room for an answer"):
        scripted.invoke("a " * 5000)
    played.engine.stand_still()
    with pytest.raises(DeadlineExceeded):
        scripted.invoke("hi", timeout=0.05)


def test_a_full_queue_is_tried_again(
    played: Played, scripted: ChatBurnish, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, refusals = played.engine.submit_many, iter(range(3))

    def refuse(requests: Any) -> Any:
        if next(refusals, None) is not None:
            raise Overloaded("the queue is full; try again later", retry_after_seconds=0.5)
        return submit(requests)

    monkeypatch.setattr(played.engine, "submit_many", refuse)
    waited: list[float] = []
    clock_of_module = SimpleNamespace(sleep=waited.append)
    monkeypatch.setattr("engine.langchain.chat_model.time", clock_of_module)
    played.engine.says = "At last."
    with pytest.raises(Overloaded, match="the queue is full"):
        scripted.invoke("hi")  # after three refusals
    assert len(waited) == 2
    assert scripted.invoke("hi").text == "At last."


@pytest.mark.usefixtures("long_answers")
def test_an_answer_that_nobody_reads_on_is_ended(played: Played, scripted: ChatBurnish) -> None:
    stream = scripted.stream("hi", max_tokens=4000)
    assert next(stream).text == "w0 "
    assert played.engine.active_streams == 1
    stream.close()  # type: ignore[attr-defined]
    wait_until(lambda: played.engine.active_streams == 0)

    async def leave() -> None:
        async for _ in scripted.astream("hi", max_tokens=4000):
            raise TimeoutError

    with pytest.raises(TimeoutError):
        asyncio.run(leave())
    wait_until(lambda: played.engine.active_streams == 0)

    async def give_up() -> None:
        async with asyncio.timeout(0.2):
            await scripted.ainvoke("hi", max_tokens=4000)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    wait_until(lambda: played.engine.active_streams == 0)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineFailure, match=re.escape("no server answers at http://127.0.0.1:9")):
        ChatBurnish(base_url="http://127.0.0.1:9").invoke("hi")


def test_a_chat_model_has_one_place_for_its_answers() -> None:
    for wrong in ({}, {"engine": object(), "base_url": "http://localhost"}):
        with pytest.raises(InvalidInput, match="an engine or a base_url"):
            ChatBurnish(**wrong)
    for address in ("localhost:7860", "http://", "http://me:secret@localhost"):
        with pytest.raises(InvalidInput, match="base_url") as refused:
            ChatBurnish(base_url=address)
        assert "secret" not in str(refused.value)
    keyed = ChatBurnish(base_url="http://localhost", api_key="top-secret")
    assert "top-secret" not in repr(keyed) + str(keyed._get_invocation_params())
