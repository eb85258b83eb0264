"""What a chat completion may ask for: each field of OpenAI's document is served or refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.web.openai.completion_request import LABELS, UNSUPPORTED_FIELDS, CompletionRequest
from engine.answer_form import AnswerForm
from engine.errors import InvalidInput, InvalidText
from engine.messages import Message, question_of, split_prefill
from engine.openai_messages import messages_of
from tests.app.web.completion_requests import USUAL, call, read

# "Create chat completion" in OpenAI's API reference, each field with a value that asks for
# something.
DOCUMENT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hello"}],
    "model": "base",
    "audio": {"format": "mp3", "voice": "alloy"},
    "frequency_penalty": 1.5,
    "function_call": {"name": "f"},
    "functions": [{"name": "f"}],
    "logit_bias": {"50": -100},
    "logprobs": True,
    "max_completion_tokens": 5,
    "max_tokens": 5,
    "metadata": {"job": "nightly"},
    "modalities": ["text", "audio"],
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": -1.5,
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "reasoning_effort": "high",
    "response_format": {"type": "json_object"},
    "safety_identifier": "hash",
    "seed": 7,
    "service_tier": "priority",
    "stop": ["\n"],
    "store": True,
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 1.5,
    "tool_choice": "required",
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "top_logprobs": 3,
    "top_p": 0.5,
    "user": "ann",
    "verbosity": "low",
    "web_search_options": {},
}
OURS = {
    "chat_template_kwargs",
    "ignore_eos",
    "min_p",
    "repetition_penalty",
    "timeout_seconds",
    "top_k",
}


def test_every_field_of_the_document_is_served_refused_or_a_label() -> None:
    served = set(CompletionRequest.model_fields) - OURS
    assert served | set(UNSUPPORTED_FIELDS) | set(LABELS) == set(DOCUMENT)
    assert not served & set(UNSUPPORTED_FIELDS)


@pytest.mark.parametrize("name", DOCUMENT)
def test_a_field_counts_or_is_refused_by_its_name(name: str) -> None:
    asked = {name: DOCUMENT[name]}
    if name in UNSUPPORTED_FIELDS:
        with pytest.raises(InvalidInput, match=f"^{name} is not supported"):
            read(**asked)
    elif name not in LABELS:
        assert getattr(read(**asked), name) != getattr(read(), name)
    else:
        assert read(**asked) == read()


@pytest.mark.parametrize("name", DOCUMENT)
def test_null_asks_for_nothing(name: str) -> None:
    if name != "messages":
        assert read(**{name: None}) == read()


def test_values_that_ask_for_nothing_are_taken() -> None:
    for name, neutral in UNSUPPORTED_FIELDS.items():
        for value in neutral:
            assert read(**{name: value}) == read(), name
    assert read(of_another_server={"deep": [1]}, mirostat=2) == read()


@pytest.mark.parametrize(
    ("stop", "taken"),
    [
        (None, ()),
        ("", ()),
        ([], ()),
        (["", "a"], ("a",)),
        ("\n", ("\n",)),
        (["a", "b"], ("a", "b")),
    ],
)
def test_stop_strings_come_in_every_form(stop: Any, taken: tuple[str, ...]) -> None:
    assert read(stop=stop).samplings(USUAL, AnswerForm())[0].stop == taken


@pytest.mark.parametrize(
    ("seed", "taken"),
    [
        (0, [0, 1, 2]),
        (-1, [2**63 - 1, 0, 1]),
        (2**63 - 1, [2**63 - 1, 0, 1]),
        (-(2**63), [0, 1, 2]),
        (2**64 - 1, [2**63 - 1, 0, 1]),
    ],
)
def test_any_64_bit_integer_is_a_seed_for_every_choice(seed: int, taken: list[int]) -> None:
    assert [s.seed for s in read(seed=seed, n=3).samplings(USUAL, AnswerForm())] == taken


def test_penalties_and_biases_reach_the_engine() -> None:
    asked = {"presence_penalty": 1, "frequency_penalty": -0.5, "logit_bias": {"7": -100, "9": 2.5}}
    (sampling,) = read(**asked, max_tokens=None, temperature=None, top_p=0).samplings(
        USUAL, AnswerForm()
    )
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -0.5)
    assert sampling.logit_bias == ((7, -100), (9, 2.5))
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p) == (8, 0.3, 0)


def test_the_operators_sampling_holds_where_a_request_says_nothing() -> None:
    first, second = read(n=2).samplings(USUAL, AnswerForm())
    assert first == USUAL
    assert (second.temperature, second.top_p, second.seed) == (0.3, 0.6, 12)


@pytest.mark.parametrize(
    "bias",
    [
        {"the": 1},
        {"-1": 1},
        {"1.5": 1},
        {"²": 1},
        {"9" * 5000: 1},
        {"7": "1"},
        {"7": True},
        {"7": None},
        {"7": 101},
        {"7": 10**400},
        {str(token): 1 for token in range(100_000)},
    ],
)
def test_a_bias_that_is_none_is_refused(bias: Any) -> None:
    with pytest.raises(InvalidInput, match="logit_bias"):
        read(logit_bias=bias).samplings(USUAL, AnswerForm())


NUMBERS = st.floats() | st.integers() | st.floats(0, 1)
NUMERIC = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "n",
    "top_logprobs",
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(NUMERIC), NUMBERS))
def test_any_number_in_any_field_is_refused_or_understood(numbers: dict[str, Any]) -> None:
    try:
        samplings = read(**numbers).samplings(USUAL, AnswerForm())
    except (InvalidInput, ValidationError):
        return
    assert len(samplings) == numbers.get("n", 1)


# Messages


def said(*items: Any) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in messages_of(items)]


def test_parts_of_text_are_joined_and_a_developer_is_the_system() -> None:
    parts = [{"type": "text", "text": "Read this."}, {"type": "text", "text": "x = 1"}]
    assert said(
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": parts, "name": "Ann"},
        {"role": "assistant", "content": None, "tool_calls": [], "refusal": None},
        {"role": "user", "content": []},
    ) == [("system", "Be kind."), ("user", "Read this.\nx = 1"), ("assistant", ""), ("user", "")]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "tool", "content": "4", "tool_call_id": "c"}, "messages.1: no call before it"),
        ({"role": "tool", "content": "4"}, "messages.1.tool_call_id must be a text"),
        ({"role": "function", "name": "f", "content": "4"}, "messages.1: the role 'function'"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
            "messages.1.tool_calls.0 must be an object with an 'id' and a 'function'",
        ),
        (
            {"role": "assistant", "tool_calls": [call("clock", "[1]")]},
            "messages.1.tool_calls.0.function.arguments must be a JSON object",
        ),
        (
            {"role": "assistant", "tool_calls": [call("a clock", "{}")]},
            "messages.1.tool_calls.0.function.name must be 1 to 64 letters",
        ),
        (
            {"role": "assistant", "tool_calls": [call("clock", "{}")]},
            "messages.1: its calls have no results yet",
        ),
        ({"role": "user", "tool_calls": [call("clock", "{}")]}, "messages.1: only the assistant"),
        ({"role": "assistant", "audio": {"id": "a"}}, "messages.1: 'audio' is not supported"),
        ({"role": "wizard", "content": "hi"}, "messages.1: unknown role 'wizard'"),
        ({"role": ["user"], "content": "hi"}, "messages.1: unknown role"),
        ({"content": "hi"}, "messages.1: unknown role 'None'"),
        ({"role": "user", "content": 7}, "messages.1.content must be text"),
        ({"role": "user", "content": ["hi"]}, "messages.1.content.0 must be an object"),
        (
            {"role": "user", "content": [{"type": "text", "text": None}]},
            "messages.1.content.0.text must be text",
        ),
        *(
            (
                {"role": "user", "content": [{"type": "text", "text": "See:"}, {"type": kind}]},
                f"messages.1.content.1: a part of type '{kind}' is not supported",
            )
            for kind in ("image_url", "input_audio", "file", "refusal")
        ),
    ],
)
def test_what_the_model_cannot_be_shown_is_refused_with_its_place(
    message: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        messages_of([{"role": "user", "content": "Hi"}, message])
    assert str(raised.value).startswith(reason)
    assert len(str(raised.value)) < 200


def test_text_that_cannot_be_stored_is_refused_in_a_part_too() -> None:
    for bad in ("nul \x00", "\ud800", "a" * 400_001):
        with pytest.raises(InvalidText):
            messages_of([{"role": "user", "content": [{"type": "text", "text": bad}]}])


def test_the_last_message_is_the_answers_beginning_where_it_is_the_assistants() -> None:
    user, assistant = Message("user", "Count."), Message("assistant", "One, ")
    assert split_prefill([user]) == ((user,), "")
    assert split_prefill([user, assistant]) == ((user,), "One, ")
    assert split_prefill([user, assistant, user]) == ((user, assistant, user), "")
    assert split_prefill([]) == ((), "")
    system = Message("system", "Be brief.")
    assert question_of([user, assistant, Message("user", "On."), system]) == "On."
    for nobody in ([], [system], [assistant], [user, assistant], [user, assistant, system]):
        with pytest.raises(InvalidInput, match="must end with a user message"):
            question_of(nobody)
