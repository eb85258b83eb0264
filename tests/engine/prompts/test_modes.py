"""What each prompt mode shows the model, word for word."""

from __future__ import annotations

import json

import pytest

from engine.errors import InvalidInput
from engine.messages import Message
from engine.prompts.examples import Example
from engine.prompts.modes import MODES, PromptTemplate, make_template, template_from_dict

EXAMPLES = (
    Example(question="2 + 2?", answer="4", thought="Two and two make four."),
    Example(question="Sky?", answer="Blue.", thought="It is a clear day."),
)
HISTORY = (Message("user", "Hello."), Message("assistant", "Hi, how can I help?"))
STEP_BY_STEP = (
    "Think step by step first. Then give the final answer on a new line that starts with 'Answer:'."
)


def shown(template: PromptTemplate, question: str) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in template.build(HISTORY, question)]


def test_plain_shows_system_history_and_question() -> None:
    assert shown(make_template("plain", EXAMPLES, "Be brief."), "3 + 3?") == [
        ("system", "Be brief."),
        ("user", "Hello."),
        ("assistant", "Hi, how can I help?"),
        ("user", "3 + 3?"),
    ]


def test_few_shot_shows_each_example_as_a_turn_before_the_history() -> None:
    assert shown(make_template("few-shot", EXAMPLES), "3 + 3?") == [
        ("system", "You are a helpful assistant."),
        ("user", "2 + 2?"),
        ("assistant", "4"),
        ("user", "Sky?"),
        ("assistant", "Blue."),
        ("user", "Hello."),
        ("assistant", "Hi, how can I help?"),
        ("user", "3 + 3?"),
    ]


def test_chain_of_thought_asks_for_steps_without_an_example() -> None:
    assert shown(make_template("cot", EXAMPLES), "3 + 3?") == [
        ("system", "You are a helpful assistant."),
        ("user", "Hello."),
        ("assistant", "Hi, how can I help?"),
        ("user", f"3 + 3?\n\n{STEP_BY_STEP}"),
    ]


@pytest.mark.parametrize("mode", ["few-shot-cot", "self-consistency"])
def test_with_examples_their_steps_are_shown(mode: str) -> None:
    assert shown(make_template(mode, EXAMPLES[:1]), "3 + 3?") == [
        ("system", "You are a helpful assistant."),
        ("user", f"2 + 2?\n\n{STEP_BY_STEP}"),
        ("assistant", "Two and two make four.\nAnswer: 4"),
        ("user", "Hello."),
        ("assistant", "Hi, how can I help?"),
        ("user", f"3 + 3?\n\n{STEP_BY_STEP}"),
    ]


@pytest.mark.parametrize(
    "text", ["{question}", "{{ x }}", "{", "}", "{0}", "{% if %}", "{a[b].c!r}"]
)
@pytest.mark.parametrize("mode", MODES)
def test_braces_are_plain_text_wherever_they_stand(mode: str, text: str) -> None:
    template = make_template(mode, (Example(text, text, text),), system=text)
    messages = template.build((Message("user", text), Message("assistant", text)), text)
    assert messages[0] == Message("system", text)
    assert [m.content for m in messages[-3:-1]] == [text, text]
    assert messages[-1].content.removesuffix(f"\n\n{STEP_BY_STEP}") == text
    if mode == "few-shot":
        assert messages[1:3] == (Message("user", text), Message("assistant", text))


def test_only_chain_of_thought_asks_for_an_answer_line() -> None:
    modes = {mode: make_template(mode, ()).has_answer_line for mode in MODES}
    assert modes == {
        "plain": False,
        "few-shot": False,
        "cot": True,
        "few-shot-cot": True,
        "self-consistency": True,
    }


def test_a_template_that_was_stored_before_the_modes_were_told_apart_shows_what_it_showed() -> None:
    """Mode cot had examples then."""
    stored = {**make_template("few-shot-cot", EXAMPLES[:1]).as_dict(), "mode": "cot"}
    restored = template_from_dict(json.loads(json.dumps(stored)))
    assert restored.as_dict() == stored
    assert shown(restored, "3 + 3?")[1:3] == [
        ("user", f"2 + 2?\n\n{STEP_BY_STEP}"),
        ("assistant", "Two and two make four.\nAnswer: 4"),
    ]


@pytest.mark.parametrize("mode", MODES)
def test_a_template_comes_back_from_json_with_its_hash_and_shows_the_same(mode: str) -> None:
    template = make_template(mode, EXAMPLES, "Be kind, {name}.")
    restored = template_from_dict(json.loads(json.dumps(template.as_dict())))
    assert restored == template
    assert restored.hash == template.hash
    assert restored.build(HISTORY, "Why?") == template.build(HISTORY, "Why?")


def test_the_hash_is_the_same_in_every_session() -> None:
    # sha256sum of {"examples":[],"instruction":"","mode":"plain","system":"S"}
    expected = "sha256:51bc10c24337795ac081717c253ab6375b39856163c491d4b5a5e5db856db398"
    assert make_template("plain", EXAMPLES, "S").hash == expected


def test_templates_that_show_different_things_have_different_hashes() -> None:
    templates = [
        make_template("plain", EXAMPLES),
        make_template("plain", EXAMPLES, "Another system prompt."),
        make_template("few-shot", EXAMPLES),
        make_template("few-shot", EXAMPLES[::-1]),
        make_template("cot", EXAMPLES),
        make_template("few-shot-cot", EXAMPLES),
        make_template("self-consistency", EXAMPLES),
    ]
    assert len({template.hash for template in templates}) == len(templates)


def test_an_unknown_mode_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="'zero-shot'; known modes: plain, few-shot, cot, few"):
        make_template("zero-shot", ())


def test_a_system_message_in_the_history_stays_one() -> None:
    from engine.prompts.modes import make_template

    shown = make_template("plain", ()).build((Message("system", "New rules."),), "Hi")
    assert Message("user", "New rules.") not in shown
