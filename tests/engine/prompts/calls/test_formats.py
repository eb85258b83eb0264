"""Calls are read back as they were written, and a growing answer only grows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.prompts.calls.formats import (
    CALL_FORMATS,
    GLM4,
    HERMES,
    LLAMA3,
    MISTRAL,
    MISTRAL11,
    MISTRAL_SPACED,
    CallFormat,
)
from engine.tools import FUNCTION_NAME, Spoken, WrittenCall

ONE = WrittenCall("get_weather", '{"city": "Paris"}')
TWO = WrittenCall("clock", '{"zone": "a \\"b\\" }", "n": {"m": [1, "{"]}}')
# As the published models write them
WRITTEN = {
    HERMES: [
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "clock", "arguments": {"zone": "a \\"b\\" }", "n": {"m": [1, "{"]}}}'
        "\n</tool_call>",
    ],
    LLAMA3: ['{"name": "get_weather", "parameters": {"city": "Paris"}}'],
    MISTRAL: [
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]',
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}, '
        '{"name": "clock", "arguments": {"zone": "a \\"b\\" }", "n": {"m": [1, "{"]}}}]',
    ],
    MISTRAL_SPACED: ['[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}}]'],
    MISTRAL11: [
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}',
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}'
        '[TOOL_CALLS]clock[ARGS]{"zone": "a \\"b\\" }", "n": {"m": [1, "{"]}}',
    ],
    GLM4: ['get_weather\n{"city": "Paris"}'],
}
CASES = [
    pytest.param(form, text, (ONE, TWO)[: count + 1], id=f"{form.name}-{count + 1}")
    for form, texts in WRITTEN.items()
    for count, text in enumerate(texts)
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CALLS = st.builds(
    WrittenCall,
    st.from_regex(FUNCTION_NAME, fullmatch=True),
    st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES, max_size=4).map(
        lambda found: json.dumps(found, ensure_ascii=False)
    ),
)


@pytest.mark.parametrize(("form", "text", "calls"), CASES)
def test_a_format_is_written_and_read_as_published(
    form: CallFormat, text: str, calls: tuple[WrittenCall, ...]
) -> None:
    assert form.write(calls) == text
    assert form.read(text) == Spoken("", calls)


@pytest.mark.integration
@pytest.mark.parametrize("form", CALL_FORMATS, ids=lambda form: form.name)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_arguments_come_back_and_each_beginning_shows_a_beginning(
    form: CallFormat, data: st.DataObject
) -> None:
    calls = tuple(data.draw(st.lists(CALLS, min_size=1, max_size=3 if form.parallel else 1)))
    words = data.draw(st.text(st.sampled_from('ab \n<{["n'), max_size=12)) if form.trigger else ""
    text = f"{words}{form.write(calls)}"
    assert form.read(text) == Spoken(words.rstrip(), calls)
    shown: Any = Spoken("")
    for end in range(len(text) + 1):
        before, shown = shown, form.read(text[:end], finished=end == len(text))
        assert shown.content.startswith(before.content)
        assert len(shown.calls) >= len(before.calls)
        for old, new in zip(before.calls, shown.calls, strict=False):
            assert new.name == old.name
            assert new.arguments.startswith(old.arguments)


@pytest.mark.parametrize("form", CALL_FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize(
    "words", ["", "Hello there.", "get_weather", 'Say {"a": 1}.', "[1, 2]", "a < b\n", "{", "f\nx"]
)
def test_words_alone_stay_words(form: CallFormat, words: str) -> None:
    assert form.read(words) == Spoken(words)
    for end in range(len(words)):
        assert words.startswith(form.read(words[:end], finished=False).content)


def test_words_before_a_call_are_kept_without_the_blanks_between() -> None:
    text = f"Let me see.\n\n{HERMES.write([ONE])}"
    assert HERMES.read(text) == Spoken("Let me see.", (ONE,))
    assert HERMES.read("Let me see.\n\n<tool", finished=False) == Spoken("Let me see.")


def test_a_call_that_was_cut_off_has_the_arguments_so_far() -> None:
    cut = HERMES.read('<tool_call>\n{"name": "clock", "arguments": {"zone": "Eur')
    assert cut == Spoken("", (WrittenCall("clock", '{"zone": "Eur'),))
    assert HERMES.read('<tool_call>\n{"name": "clo') == Spoken("")


@pytest.mark.parametrize("blank", ["", "\n"])
def test_llama_may_write_its_tag_first(blank: str) -> None:
    written = f"{blank}<|python_tag|>{LLAMA3.write([ONE])}"
    assert LLAMA3.read(written) == Spoken("", (ONE,))
    assert LLAMA3.read(written[:20], finished=False) == Spoken("")
