"""Answers that follow a grammar, by an engine whose weights are random: only the grammar holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from engine.errors import InvalidInput
from engine.messages import Message
from engine.prompts.load import load_renderer
from engine.request import (
    MAX_GRAMMAR_CHARS,
    Finished,
    GenerationRequest,
    Grammar,
    SamplingParams,
    collect,
)
from engine.serving.grammar import GrammarCompiler
from tests.helpers import ask
from tests.support.chatglm_folders import write_chatglm1, write_chatglm2, write_chatglm3, write_glm4
from tests.support.engines import AnyEngine

PERSON = {
    "type": "object",
    "properties": {
        "name": {"enum": ["Ann", "Bob"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "likes": {"type": "array", "items": {"enum": ["tea", "rain"]}, "maxItems": 2},
        "knows": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
    },
    "required": ["name", "age", "likes", "knows"],
    "additionalProperties": False,
}


def schema(value: object) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


def answers(engine: AnyEngine, grammar: Grammar | None, **sampling: Any) -> list[Finished]:
    """Eight answers in one batch, each with a seed of its own."""
    asked = [
        ask(
            "Who?",
            **{"temperature": 1.0, "max_new_tokens": 80, "seed": seed, **sampling},
            grammar=grammar,
        )
        for seed in range(8)
    ]
    return [collect(stream) for stream in engine.submit_many(asked)]


def test_every_answer_is_json_of_the_schema(engine: AnyEngine) -> None:
    for answer in answers(engine, schema(PERSON)):
        assert answer.reason == "stop"
        said = json.loads(answer.text)
        assert list(said) == ["name", "age", "likes", "knows"]
        assert said["name"] in ("Ann", "Bob")
        assert isinstance(said["age"], int)
        assert 0 <= said["age"] <= 99
        assert set(said["likes"]) <= {"tea", "rain"}
        assert len(said["likes"]) <= 2
        assert said["knows"] in (None, True, False)


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (Grammar("regex", "[0-9]{3}-(up|down)"), "[0-9]{3}-(up|down)"),
        (Grammar("lark", 'start: "yes" | "no" ","? "never"'), "yes|no,?never"),
        (Grammar("gbnf", 'root ::= ("a" | "b") [x-z] "!"'), "[ab][x-z]!"),
    ],
    ids=lambda given: given.kind if isinstance(given, Grammar) else "",
)
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_other_languages_hold_too(
    engine: AnyEngine, grammar: Grammar, pattern: str, temperature: float
) -> None:
    for answer in answers(engine, grammar, temperature=temperature):
        assert answer.reason == "stop"
        assert re.fullmatch(pattern, answer.text)


def test_a_complete_answer_ends_where_end_tokens_are_ignored(engine: AnyEngine) -> None:
    (answer, *_) = answers(engine, Grammar("regex", "yes"), ignore_eos=True)
    assert (answer.text, answer.reason) == ("yes", "stop")


def test_a_cut_answer_is_the_beginning_of_one(engine: AnyEngine) -> None:
    for answer in answers(engine, Grammar("regex", "(ab)+!"), max_new_tokens=1):
        assert answer.completion_tokens == 1
        assert answer.reason in ("length", "stop")
        assert re.fullmatch("(ab)*a?|(ab)+!", answer.text)


def test_biases_and_penalties_do_not_lead_out_of_the_language(engine: AnyEngine) -> None:
    wanted = engine.renderer.completion("?", complete=False)[0]
    grammar = Grammar("regex", "[ab]{6}")
    sampling = {
        "logit_bias": ((wanted, 100.0),),
        "repetition_penalty": 2.0,
        "presence_penalty": 2.0,
    }
    for answer in answers(engine, grammar, **sampling):
        assert re.fullmatch("[ab]{6}", answer.text)


def test_an_answer_with_a_grammar_changes_no_other_row(engine: AnyEngine) -> None:
    free = ask("Who?", max_new_tokens=12)
    alone = collect(engine.submit(free)).text
    bound = ask("Who?", max_new_tokens=12, grammar=Grammar("regex", "[ab]{30}"))
    streams = engine.submit_many([bound, free, bound])
    assert [collect(stream).text for stream in streams][1] == alone


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("json_schema", "{"),
        schema({"type": "nonsense"}),
        schema({"type": "string", "format": "no such format"}),
        Grammar("regex", "[a"),
        Grammar("lark", "start: missing"),
        Grammar("gbnf", "root = nothing"),
    ],
    ids=lambda grammar: f"{grammar.kind} {grammar.text}",
)
def test_what_cannot_be_kept_is_refused(engine: AnyEngine, grammar: Grammar) -> None:
    with pytest.raises(
        InvalidInput, match=rf"^the grammar \({grammar.kind}\) is refused: \S"
    ) as told:
        engine.submit(ask("Who?", grammar=grammar))
    assert "\n" not in str(told.value)


def test_a_grammar_has_an_end_and_begins_with_the_answer() -> None:
    with pytest.raises(InvalidInput, match="at most 65536 characters"):
        Grammar("regex", "a" * (MAX_GRAMMAR_CHARS + 1))
    with pytest.raises(InvalidInput, match="given in part"):
        GenerationRequest(
            (Message("user", "Who?"),),
            SamplingParams(grammar=Grammar("regex", "yes")),
            prefill="ye",
        )


# ChatGLM's vocabularies


@pytest.mark.parametrize("write", [write_chatglm1, write_chatglm2, write_chatglm3, write_glm4])
def test_a_vocabulary_of_chatglm_can_be_bound(
    write: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    renderer: Any = load_renderer(write(tmp_path_factory.mktemp("model")))
    rows = renderer.token_count + 8
    assert _forced(renderer, rows, '{"a": [12, "你好"]}') == '{"a": [12, "你好"]}'


def _forced(renderer: Any, rows: int, text: str) -> str:
    """The text of the likeliest tokens under a regular expression that allows one text alone."""
    matcher = GrammarCompiler(renderer, rows).compile(Grammar("regex", re.escape(text)))
    ids: list[int] = []
    while not matcher.is_complete:
        logits = matcher.allow(torch.zeros(rows))
        ids.append(int(logits.argmax()))
        if ids[-1] in renderer.end_ids:
            break
        matcher.advance(ids[-1])
    return _bytes_of(renderer, ids).decode()


def _bytes_of(renderer: Any, ids: Sequence[int]) -> bytes:
    return b"".join(
        renderer.token_bytes(token_id) for token_id in ids if token_id not in renderer.end_ids
    )
