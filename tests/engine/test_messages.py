"""Any text a person can type is kept as it came; what is not text is refused and named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidText
from engine.messages import (
    Message,
    clean_text,
    is_blank,
    messages_from_dicts,
    question_index,
    require_text,
)
from engine.storage import canonical_json
from engine.tools import Tool, ToolCall

FAMILY = "👩\u200d👩\u200d👧\u200d👦"  # four people joined by zero-width joiners
OVERRIDE = "invoice\u202egpj.exe"  # a right-to-left override
text_without_nul = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


@given(text_without_nul)
def test_any_text_without_nul_and_surrogates_is_kept_as_it_is(text: str) -> None:
    assert clean_text(text) == text


@given(text_without_nul, st.sampled_from(["\x00", "\ud800", "\udfff"]), text_without_nul)
def test_nul_or_a_lone_surrogate_anywhere_is_refused(before: str, bad: str, after: str) -> None:
    with pytest.raises(InvalidText):
        clean_text(before + bad + after)


@pytest.mark.parametrize("text", [FAMILY, OVERRIDE, "a\tb\r\nc\x07", "Ω\u0301", "你好", "\ufeffx"])
def test_emoji_sequences_direction_marks_and_control_characters_are_kept(text: str) -> None:
    assert require_text(text) == text


def test_the_reason_names_what_was_refused() -> None:
    with pytest.raises(InvalidText, match="the correction contains a NUL character"):
        clean_text("a\x00b", what="correction")
    with pytest.raises(InvalidText, match="the note contains a lone surrogate"):
        clean_text("\udc80", what="note")
    with pytest.raises(InvalidText, match="the note has 11 characters; the limit is 10"):
        clean_text("x" * 11, what="note", limit_chars=10)


def test_the_length_limit_counts_characters_and_includes_its_end() -> None:
    assert clean_text("😀" * 10, limit_chars=10) == "😀" * 10


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t ", "\u3000", "\u200b\u200d\ufeff", "\u202e", "\x07"]
)
def test_text_of_which_nothing_is_seen_is_blank_and_not_accepted_as_a_message(text: str) -> None:
    assert is_blank(text)
    with pytest.raises(InvalidText, match="the message is empty"):
        require_text(text)


@pytest.mark.parametrize("text", [" a ", FAMILY, "\u200b.", "0"])
def test_text_with_one_visible_character_is_not_blank(text: str) -> None:
    assert not is_blank(text)


def test_messages_survive_the_round_trip_through_dicts() -> None:
    messages = (Message("system", "Be kind."), Message("user", FAMILY), Message("assistant", "42"))
    assert messages_from_dicts([m.as_dict() for m in messages]) == messages


def test_an_unknown_role_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        InvalidText, match="unknown role 'critic'; known roles: system, user, assistant, tool"
    ):
        messages_from_dicts([{"role": "critic", "content": "x"}])


def test_tools_calls_and_results_survive_the_round_trip_and_stand_where_openai_has_them() -> None:
    # The order of a schema's keys is a part of the prompt, which JSON with sorted keys must keep
    tool = Tool("clock", "The time.", '{"type": "object", "properties": {"b": {}, "a": {}}}')
    call = ToolCall("call_1", "clock", '{"zone": "北京"}')
    messages = (
        Message("system", "", tools=(tool,)),
        Message("user", "How late is it?"),
        Message("assistant", "", calls=(call,)),
        Message("tool", "Noon.", call_id="call_1"),
    )
    rows = [m.as_dict() for m in messages]
    assert messages_from_dicts(json.loads(canonical_json(rows))) == messages
    assert rows[2]["tool_calls"] == [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "clock", "arguments": '{"zone": "北京"}'},
        }
    ]
    assert rows[3] == {"role": "tool", "content": "Noon.", "tool_call_id": "call_1"}


def test_a_question_waits_behind_its_calls_and_their_results() -> None:
    asked = (Message("system", "S"), Message("user", "How late is it?"))
    called = Message("assistant", "", calls=(ToolCall("1", "clock", "{}"),))
    told = Message("tool", "Noon.", call_id="1")
    assert question_index([*asked, called, told]) == 1
    assert question_index([*asked, called, told, Message("assistant", "Noon.")]) is None


def test_words_are_changed_in_tools_and_calls_too_and_json_stays_json() -> None:
    def redact(text: str) -> str:
        return text.replace("Ann", "[NAME]").replace("5551234", "[PHONE]")

    call = ToolCall("1", "dial", '{"to": ["Ann", 5551234], "loud": true}')
    changed = Message("assistant", "Ann?", calls=(call,)).changed(redact)
    assert changed.content == "[NAME]?"
    assert json.loads(changed.calls[0].arguments) == {"to": ["[NAME]", "[PHONE]"], "loud": True}


@pytest.mark.parametrize("text", ["\u3164", "\u2800", "\u115f"])
def test_invisible_letters_are_blank(text: str) -> None:
    from engine.messages import is_blank

    assert is_blank(text)
