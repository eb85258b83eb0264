"""Answers by a schema: `python -m benchmarks.structured` prints how many are valid, and the speed.

The embedded model answers 200 schemas, whose shapes are those of the public JSON Schema test suite,
rebuilt; `jsonschema` validates the answers. Then batches of eight answers with and without a
grammar are timed alternately: a regular expression that allows every text, so that both write as
many tokens; and with a tool that may be called, beside the same prompt as plain text. Asked: 0.9 of
the speed without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from platformdirs import user_cache_path

from engine.fast import FastEngine
from engine.hardware import processor_name
from engine.messages import Message
from engine.models.catalogue import resolve
from engine.prompts.calls.messages import as_plain
from engine.request import Finished, GenerationRequest, Grammar, SamplingParams, collect
from engine.start import kernel_cache
from engine.tools import Tool

Schema = dict[str, Any]
ROWS = 8
ROUNDS = 5
SPEED_TOKENS = 128
WANTED_RATIO = 0.9
ANYTHING = Grammar("regex", r"(?s:.*)")
OPEN_SCHEMA = Grammar(
    "json_schema", json.dumps({"type": "array", "items": {"type": "string"}, "minItems": 99})
)
QUESTION = (Message("user", "Describe a town by the sea as JSON."),)
WITH_TOOL = (
    Message("system", "", tools=(Tool("find_town", "Find a town by its name."),)),
    *QUESTION,
)


def main() -> None:
    """Print the document."""
    arguments = _arguments()
    base = resolve("embedded", arguments.model_cache)
    engine = FastEngine(base, quantization="int4", kernel_cache=kernel_cache(arguments.model_cache))
    try:
        document: dict[str, Any] = {"processor": processor_name()}
        if arguments.only != "speed":
            document |= measure_validity(engine, list(schemas()))
        if arguments.only != "validity":
            document |= measure_speed(engine)
    finally:
        engine.close()
    print(json.dumps(document) if arguments.json else json.dumps(document, indent=2))


def schemas() -> Iterator[Schema]:
    """200 schemas: simple ones, arrays and objects of them, choices and references."""
    simple = list(_simple())
    yield from simple
    for items, (least, most) in product(simple[:20], ((0, 2), (1, 1), (2, 3))):
        yield {"type": "array", "items": items, "minItems": least, "maxItems": most}
    for number, (one, other) in enumerate(zip(simple, reversed(simple), strict=True)):
        yield {
            "type": "object",
            "properties": {"first": one, "second": other, f"third {number}": {"type": "boolean"}},
            "required": ["first", "second"],
            "additionalProperties": False,
        }
    for one, other in zip(simple[:30], simple[5:35], strict=True):
        yield {
            "anyOf": [
                one,
                {
                    "type": "object",
                    "properties": {"a": other},
                    "required": ["a"],
                    "additionalProperties": False,
                },
            ]
        }
    for each in simple[:30]:
        yield {
            "$defs": {
                "leaf": each,
                "pair": {
                    "type": "array",
                    "prefixItems": [{"$ref": "#/$defs/leaf"}] * 2,
                    "minItems": 2,
                    "items": False,
                },
            },
            "type": "object",
            "properties": {"pair": {"$ref": "#/$defs/pair"}},
            "required": ["pair"],
            "additionalProperties": False,
        }


def _simple() -> Iterator[Schema]:
    """40 schemas of a single value."""
    yield from (
        {"const": value}
        for value in ("red", 7, 1.5, True, None, "你好", 'a "quoted" word', [1, "a"])
    )
    yield from (
        {"enum": values} for values in (["a", "b"], [1, 2, 3], ["x", 1, None], [[1], {"a": 1}])
    )
    yield from ({"type": name} for name in ("boolean", "null"))
    for least, most in ((0, 5), (3, 3), (1, 8)):
        yield {"type": "string", "minLength": least, "maxLength": most}
    for pattern in (
        "^[a-z]{2,4}$",
        "^[0-9]{3}-[0-9]{4}$",
        "^(yes|no)$",
        "^#[0-9a-f]{6}$",
        "^\\d+(\\.\\d{2})?$",
    ):
        yield {"type": "string", "pattern": pattern, "maxLength": 12}
    for name in ("date", "time", "date-time", "uuid", "ipv4"):
        yield {"type": "string", "format": name}
    for least, most in ((0, 9), (-5, 5), (100, 999), (7, 7)):
        yield {"type": "integer", "minimum": least, "maximum": most}
    yield from (
        {"type": "integer", "minimum": 0, "maximum": 40, "multipleOf": step} for step in (2, 5)
    )
    for low, high in ((0.0, 1.0), (-2.5, 2.5)):
        yield {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high}
    yield {"type": ["integer", "null"], "minimum": 0, "maximum": 20}
    yield {"type": ["boolean", "string"], "maxLength": 4}
    yield {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 12}]}
    yield {"oneOf": [{"type": "boolean"}, {"type": "null"}]}
    yield {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }


def measure_validity(engine: FastEngine, asked: Sequence[Schema]) -> dict[str, Any]:
    """Count the answers that are valid under their schemas, and name the schemas of the others."""
    wrong: list[Schema] = []
    cut = 0
    for start in range(0, len(asked), ROWS):
        some = asked[start : start + ROWS]
        answers = _answers(engine, [Grammar("json_schema", json.dumps(each)) for each in some], 200)
        for each, answer in zip(some, answers, strict=True):
            cut += answer.reason != "stop"
            if answer.reason != "stop" or not _is_valid(each, answer.text):
                wrong.append(each)
    return {"schemas": len(asked), "valid": len(asked) - len(wrong), "cut": cut, "wrong": wrong}


def _is_valid(schema: Schema, text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return Draft202012Validator(
        schema, format_checker=Draft202012Validator.FORMAT_CHECKER
    ).is_valid(value)


def measure_speed(engine: FastEngine) -> dict[str, Any]:
    """Tokens per second with a grammar over those without, alternately, in batches of eight."""
    ratios: dict[str, list[float]] = {"anything": [], "schema": [], "tools": []}
    for _ in range(ROUNDS):
        plain = _tokens_per_second(engine, None)
        ratios["anything"].append(_tokens_per_second(engine, ANYTHING) / plain)
        ratios["schema"].append(_tokens_per_second(engine, OPEN_SCHEMA) / plain)
        as_text = _tokens_per_second(engine, None, tuple(as_plain(WITH_TOOL)))
        ratios["tools"].append(_tokens_per_second(engine, None, WITH_TOOL) / as_text)
    return {
        f"speed_{name}": {
            "asked": f">= {WANTED_RATIO}",
            "median": round(statistics.median(found), 3),
            "met": statistics.median(found) >= WANTED_RATIO,
            "all": [round(r, 3) for r in found],
        }
        for name, found in ratios.items()
    }


def _tokens_per_second(
    engine: FastEngine, grammar: Grammar | None, messages: tuple[Message, ...] = QUESTION
) -> float:
    begun = time.perf_counter()
    answers = _answers(engine, [grammar] * ROWS, SPEED_TOKENS, messages)
    return sum(answer.completion_tokens for answer in answers) / (time.perf_counter() - begun)


def _answers(
    engine: FastEngine,
    grammars: Sequence[Grammar | None],
    max_new_tokens: int,
    messages: tuple[Message, ...] = QUESTION,
) -> list[Finished]:
    """One answer by each grammar, in one batch; without one they go on past end tokens."""
    requests = [
        GenerationRequest(
            messages,
            SamplingParams(
                temperature=0.7,
                max_new_tokens=max_new_tokens,
                seed=seed,
                grammar=grammar,
                ignore_eos=grammar is None or grammar in (ANYTHING, OPEN_SCHEMA),
            ),
        )
        for seed, grammar in enumerate(grammars)
    ]
    return [collect(stream) for stream in engine.submit_many(requests)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the document on one line")
    parser.add_argument("--only", choices=("validity", "speed"), help="one part alone")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    return parser.parse_args()


if __name__ == "__main__":
    main()
