"""ChatGLM3's calls: keyword arguments of Python, which are JSON everywhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from engine.prompts.calls.keywords import CHATGLM3
from engine.tools import Spoken, WrittenCall
from tests.engine.prompts.calls.test_formats import CALLS

# As `PROMPT_en.md` of the published ChatGLM3 shows it
PUBLISHED = """\
get_current_weather
```python
tool_call(location="beijing", unit="celsius")
```"""
WEATHER = WrittenCall("get_current_weather", '{"location": "beijing", "unit": "celsius"}')


def test_a_call_is_written_and_read_as_published() -> None:
    assert CHATGLM3.write([WEATHER]) == PUBLISHED
    assert CHATGLM3.read(PUBLISHED) == Spoken("", (WEATHER,))


def test_a_blank_may_begin_the_second_line() -> None:
    written = PUBLISHED.replace("\n", "\n ", 1)
    assert CHATGLM3.read(written) == Spoken("", (WEATHER,))
    head = len("get_current_weather\n ")
    assert CHATGLM3.read(written[:head], finished=False) == Spoken("")
    assert CHATGLM3.read("Yes\n I do", finished=False) == Spoken("Yes\n I do")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("True", True),
        ("true", True),
        ("None", None),
        ("-1.5e3", -1500.0),
        ("'it\\'s'", "it's"),
        ('"a, b) = (c"', "a, b) = (c"),
        ("[1, (2, 3), {'k': False}]", [1, [2, 3], {"k": False}]),
        ("beijing", "beijing"),  # without its quotes
        ("{1, 2}", "{1, 2}"),  # a set has no form in JSON
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("1e999", "1e999"),
        ("[" * 9000 + "]" * 9000, "[" * 9000 + "]" * 9000),
    ],
)
def test_a_literal_is_read_and_nothing_is_evaluated(written: str, value: Any) -> None:
    (call,) = CHATGLM3.read(f"f\n```python\ntool_call(a={written}, b=1)\n```").calls
    assert json.loads(call.arguments) == {"a": value, "b": 1}


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("f\n```python\ntool_call()", "{}"),
        ("f\n```python\ntool_call( a = 1 , )", '{"a": 1}'),
        ('f\n```python\ntool_call(a=1, b="x', '{"a": 1'),
        ("f\n```python\ntool_call(a=1, b", '{"a": 1'),
        ("f\n```python\ntool_call(", "{"),
    ],
)
def test_a_call_may_have_no_arguments_or_be_cut_off(text: str, arguments: str) -> None:
    assert CHATGLM3.read(text).calls == (WrittenCall("f", arguments),)


@pytest.mark.parametrize("words", ["f", "f\n", "f\n```python\nprint(1)\n```", "It is noon."])
def test_words_alone_stay_words(words: str) -> None:
    assert CHATGLM3.read(words) == Spoken(words)


@pytest.mark.integration
@settings(max_examples=150, deadline=None)
@given(call=CALLS)
def test_any_arguments_come_back_and_each_beginning_shows_a_beginning(call: WrittenCall) -> None:
    text = CHATGLM3.write([call])
    assert CHATGLM3.read(text) == Spoken("", (call,))
    before = Spoken("")
    for end in range(len(text) + 1):
        shown = CHATGLM3.read(text[:end], finished=end == len(text))
        assert shown.content.startswith(before.content)
        assert len(shown.calls) >= len(before.calls)
        for old, new in zip(before.calls, shown.calls, strict=False):
            assert new.name == old.name
            assert new.arguments.startswith(old.arguments)
        before = shown
