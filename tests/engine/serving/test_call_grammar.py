"""Answers that may or must call, by an engine whose weights are random: only the grammar holds."""

from __future__ import annotations

import copy
import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from llguidance import LLTokenizer

from engine.errors import InvalidInput
from engine.fast import FastEngine
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.calls.formats import (
    CALL_FORMATS,
    GLM4,
    HERMES,
    LLAMA3,
    MISTRAL,
    MISTRAL11,
    CallFormat,
)
from engine.prompts.reasoning import split_reasoning
from engine.prompts.render import Renderer
from engine.prompts.template_check import TemplateAbilities
from engine.request import Finished, GenerationRequest, Grammar, SamplingParams, collect
from engine.serving.grammar import GrammarCompiler
from engine.tools import Spoken, Tool, ToolChoice, WrittenCall
from tests.support.engines import AnyEngine

SCHEMAS: dict[str, dict[str, Any]] = {
    "weather": {
        "type": "object",
        "properties": {
            "city": {"enum": ["Rome", "Oslo"]},
            "days": {"type": "integer", "minimum": 0, "maximum": 9},
        },
        "required": ["city"],
    },
    "weather_map": {
        "type": "object",
        "properties": {
            "area": {"$ref": "#/$defs/area"},
            "when": {"anyOf": [{"type": "null"}, {"const": "now"}]},
        },
        "required": ["area", "when"],
        "$defs": {
            "area": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3}
        },
    },
    "stop": {"type": "object", "properties": {}, "additionalProperties": False},
}
TOOLS = tuple(Tool(name, "It helps.", json.dumps(schema)) for name, schema in SCHEMAS.items())
MESSAGES = (Message("system", "", tools=TOOLS), Message("user", "Who?"))
MARKS = ("[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "<tool_call>", "</tool_call>", "<think>")


def answers(engine: AnyEngine, choice: ToolChoice | None, **sampling: Any) -> list[Finished]:
    """Eight answers in one batch, each with a seed of its own."""
    given = {"temperature": 1.0, "max_new_tokens": 200, "tool_choice": choice} | sampling
    asked = [GenerationRequest(MESSAGES, SamplingParams(seed=seed, **given)) for seed in range(8)]
    return [collect(stream) for stream in engine.submit_many(asked)]


def require_valid(calls: tuple[WrittenCall, ...]) -> None:
    for call in calls:
        jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


@pytest.mark.parametrize("temperature", [0.0, 1.0, 1.5])
def test_a_required_call_is_valid_under_its_schema(engine: AnyEngine, temperature: float) -> None:
    for answer in answers(engine, ToolChoice("required"), temperature=temperature):
        spoken = HERMES.read(answer.text)
        assert spoken.content == ""
        whole = spoken.calls if answer.reason == "stop" else spoken.calls[:-1]
        assert whole
        require_valid(whole)


def test_one_call_alone_where_several_are_not_wanted(engine: AnyEngine) -> None:
    for answer in answers(engine, ToolChoice("required", parallel=False)):
        assert answer.reason == "stop"
        calls = HERMES.read(answer.text).calls
        assert len(calls) == 1
        require_valid(calls)


def test_a_named_function_is_called(engine: AnyEngine) -> None:
    for answer in answers(engine, ToolChoice("required", "weather_map", parallel=False)):
        (call,) = HERMES.read(answer.text).calls
        assert call.name == "weather_map"
        require_valid((call,))


def test_where_it_may_call_an_answer_is_words_or_valid_calls(engine: AnyEngine) -> None:
    begun = engine.renderer.completion("<tool_call>", complete=False)
    # Random weights do not come upon a call: the tokens of its beginning are made likely
    biased = tuple((token_id, 9.0) for token_id in set(begun))
    for answer in answers(engine, None) + answers(engine, None, logit_bias=biased):
        spoken = HERMES.read(answer.text)
        if answer.reason == "stop":
            assert "<tool_call>" not in spoken.content
            require_valid(spoken.calls)


def test_tools_change_no_other_row(engine: AnyEngine) -> None:
    free = GenerationRequest((Message("user", "Who?"),), SamplingParams(0.0, max_new_tokens=12))
    alone = collect(engine.submit(free)).text
    bound = GenerationRequest(MESSAGES, SamplingParams(0.0, max_new_tokens=12))
    streams = engine.submit_many([bound, free, bound])
    assert [collect(stream).text for stream in streams][1] == alone


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"properties": {"a": {"type": "nonsense"}}}, "the parameters of the tool b are refused"),
        ({"properties": {"a": {"format": "no such"}}}, "the parameters of the tool b are refused"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_with_its_tool(
    engine: AnyEngine, schema: object, problem: str
) -> None:
    tools = (Tool("a"), Tool("b", parameters=json.dumps(schema)))
    messages = (Message("system", "", tools=tools), Message("user", "Who?"))
    with pytest.raises(InvalidInput, match=problem):
        engine.submit(GenerationRequest(messages))


def test_the_schemas_of_all_tools_have_a_limit(smollm_tokenizer: Any) -> None:
    long = Tool("a", parameters=json.dumps({"enum": ["x" * 70_000]}))
    compiler = GrammarCompiler(Renderer(smollm_tokenizer), len(smollm_tokenizer))
    with pytest.raises(InvalidInput, match="the tools may have at most 65536 characters"):
        compiler.compile_calls([long], ToolChoice(), opening="", may_think=False)


def test_tools_go_with_no_other_grammar_and_no_given_beginning() -> None:
    with pytest.raises(InvalidInput, match="follows a response format is offered none"):
        GenerationRequest(MESSAGES, SamplingParams(grammar=Grammar("regex", "yes")))
    with pytest.raises(InvalidInput, match="given in part"):
        GenerationRequest(MESSAGES, prefill="ye")


# The language of each format, over a real vocabulary

CALLS = {
    "weather": '{"city": "Rome", "days": 3}',
    "weather_map": '{"area": [true, false], "when": null}',
    "stop": "{}",
}


class Accepts:
    """Whether the grammar of a format takes a text, token by token, to its end."""

    def __init__(self, tokenizer: Any, form: CallFormat) -> None:
        self.form = form
        self.renderer = Renderer(tokenizer, abilities=TemplateAbilities(calls=form))
        self.compiler = GrammarCompiler(self.renderer, len(tokenizer))

    def __call__(
        self, text: str, choice: ToolChoice, *, opening: str = "", may_think: bool = False
    ) -> bool:
        matcher = self.compiler.compile_calls(TOOLS, choice, opening=opening, may_think=may_think)
        end = min(self.renderer.end_ids)
        for token_id in self.renderer.tokenizer.encode(text, add_special_tokens=False):
            allowed = matcher.allow(torch.zeros(len(self.renderer.tokenizer)))
            if allowed[token_id] == -torch.inf:
                return False
            matcher.advance(token_id)
        return matcher.is_complete or bool(
            matcher.allow(torch.zeros(len(self.renderer.tokenizer)))[end] == 0
        )


@pytest.fixture(scope="module")
def vocabularies(smollm_tokenizer: Any) -> Iterator[dict[str, Any]]:
    """The real vocabulary, and one in which the marks of calls are control tokens.

    llguidance reads each once, which takes half a second, for the grammars of all formats.
    """
    marked = copy.deepcopy(smollm_tokenizer)
    marked.add_special_tokens({"additional_special_tokens": [*MARKS, "</think>"]})

    @functools.cache
    def read(backend: str, rows: int, ends: tuple[int, ...]) -> LLTokenizer:
        return LLTokenizer(backend, n_vocab=rows, eos_token=list(ends))

    def read_once(backend: str, *, n_vocab: int, eos_token: list[int]) -> LLTokenizer:
        return read(backend, n_vocab, tuple(eos_token))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.serving.grammar.LLTokenizer", read_once)
        yield {"letters": smollm_tokenizer, "tokens": marked}


@pytest.fixture(scope="module", params=list(itertools.product(CALL_FORMATS, ("letters", "tokens"))))
def accepts(request: pytest.FixtureRequest, vocabularies: dict[str, Any]) -> Accepts:
    form, kind = request.param
    return Accepts(vocabularies[kind], form)


AUTO, REQUIRED = ToolChoice(), ToolChoice("required")


@pytest.mark.integration
@pytest.mark.parametrize("name", CALLS)
def test_each_format_takes_its_calls_and_nothing_else(accepts: Accepts, name: str) -> None:
    form = accepts.form
    call = form.write([WrittenCall(name, CALLS[name])])
    for choice in (AUTO, REQUIRED, ToolChoice("required", name, parallel=False)):
        assert accepts(call, choice)
    assert not accepts(call, ToolChoice("required", next(n for n in CALLS if n != name)))
    for arguments in ('{"city": "Paris"}', '{"made_up": 1}', '{"city":"Rome"}', "[]"):
        assert not accepts(form.write([WrittenCall(name, arguments)]), REQUIRED)
    assert not accepts(form.write([WrittenCall("unknown", "{}")]), REQUIRED)
    for other in ("unknown", name):  # what reads as a call and is none is not written as words
        text = form.write([WrittenCall(other, '{"made_up": 1}')])
        assert not accepts(text, AUTO)


def test_each_format_takes_words_where_no_call_is_required(accepts: Accepts) -> None:
    for words in ("", "Hello {there}.\n\n- a\n", "Rome, stop", '{"name": "x"}'):
        assert accepts(words, AUTO)
        assert not accepts(words, REQUIRED)
        assert accepts.form.read(words) == Spoken(words)


def test_several_calls_where_the_format_and_the_caller_allow_them(accepts: Accepts) -> None:
    form = accepts.form
    two = form.write([WrittenCall(name, CALLS[name]) for name in ("weather", "stop")])
    allowed = form.parallel
    assert accepts(two, REQUIRED) is allowed
    assert accepts(two, AUTO) is allowed
    if allowed:
        assert not accepts(two, ToolChoice("required", parallel=False))
        assert accepts(f"I look.\n{two}", AUTO) is bool(form.trigger)


@pytest.mark.parametrize("opening", ["", "<think>\n"])
def test_a_thought_may_come_first_and_holds_no_call(accepts: Accepts, opening: str) -> None:
    form = accepts.form
    call = form.write([WrittenCall("stop", "{}")])
    thought = ("" if opening else "<think>") + "It names a city: {so}.\n</think>\n\n"
    said: Any = {"opening": opening, "may_think": not opening}
    for choice in (AUTO, REQUIRED):
        assert accepts(thought + call, choice, **said)
        assert accepts(call, choice, **said) is not bool(opening)
    assert accepts(f"{thought}Yes.", AUTO, **said)
    assert not accepts(f"{thought}Yes.", REQUIRED, **said)
    reasoned = split_reasoning(opening + thought + call)
    assert reasoned.thought == "It names a city: {so}."
    assert form.read(reasoned.answer).calls == (WrittenCall("stop", "{}"),)


@pytest.mark.parametrize("form", [LLAMA3, MISTRAL, MISTRAL11, GLM4], ids=lambda form: form.name)
def test_a_tag_that_may_stand_before_a_call_is_a_token(
    vocabularies: dict[str, Any], form: CallFormat
) -> None:
    accepts = Accepts(vocabularies["tokens"], form)
    call = form.write([WrittenCall("stop", "{}")])
    assert accepts(f"<|python_tag|>{call}", AUTO) is (form is LLAMA3)


# The embedded model


@pytest.mark.slow
def test_the_embedded_model_calls_validly(smollm: BaseModel, kernel_cache: Path) -> None:
    engine = FastEngine(smollm, quantization="int4", kernel_cache=kernel_cache)
    question = Message("user", "Will it rain in Oslo in the next three days?")
    messages = (Message("system", "", tools=TOOLS), question)
    try:
        for choice in (AUTO, REQUIRED, ToolChoice("required", "weather", parallel=False)):
            asked = [
                GenerationRequest(
                    messages, SamplingParams(0.7, max_new_tokens=300, seed=seed, tool_choice=choice)
                )
                for seed in range(8)
            ]
            for stream in engine.submit_many(asked):
                answer = collect(stream)
                calls = HERMES.read(answer.text).calls
                require_valid(calls if answer.reason == "stop" else calls[:-1])
                assert calls or choice is AUTO
    finally:
        engine.close()
