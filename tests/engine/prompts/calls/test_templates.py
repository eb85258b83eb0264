"""Prompts with tools: by the chat template's own form, found by what it writes, or as text."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from engine.messages import Message
from engine.prompts.calls.formats import (
    GLM4,
    HERMES,
    LLAMA3,
    MISTRAL,
    MISTRAL11,
    MISTRAL_SPACED,
    CallFormat,
)
from engine.prompts.render import Renderer
from engine.prompts.template_check import examine_template
from engine.tools import Tool, ToolCall
from tests.helpers import CHATML

# Small templates that write calls as the published ones of their families do
TEMPLATES: dict[str, tuple[CallFormat | None, str]] = {
    "hermes": (
        HERMES,
        "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}"
        "<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}"
        "{% if m.role == 'tool' %}{{ '\n' }}<tool_response>\n{{ m.content }}\n</tool_response>"
        "{% else %}{% if m.content %}{{ '\n' + m.content }}{% endif %}"
        "{% for c in m.tool_calls or [] %}{{ '\n' }}<tool_call>\n"
        '{"name": "{{ c.function.name }}", "arguments": '
        "{{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}{% endif %}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ),
    "llama3": (
        LLAMA3,
        "{% if tools is not none %}{% for t in tools %}{{ t | tojson(indent=4) }}\n{% endfor %}"
        "{% endif %}{% for m in messages %}{% if 'tool_calls' in m %}"
        "{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at once') }}{% endif %}"
        '[assistant]{"name": "{{ m.tool_calls[0].function.name }}", "parameters": '
        "{{ m.tool_calls[0].function.arguments | tojson }}}"
        "{% elif m.role == 'tool' %}[ipython]{{ m.content }}{% else %}[{{ m.role }}]{{ m.content }}"
        "{% endif %}{% endfor %}[assistant]",
    ),
    "mistral": (
        MISTRAL,
        "{% for m in messages %}{% if m.role == 'user' %}"
        "{% if loop.first and tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]"
        "{% endif %}[INST]{{ m.content }}[/INST]{% elif m.tool_calls is defined %}[TOOL_CALLS]["
        "{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('nine') }}"
        '{% endif %}{{ (c.function | tojson)[:-1] }}, "id": "{{ c.id }}"}'
        "{% if not loop.last %}, {% endif %}{% endfor %}]{{ eos_token }}"
        "{% elif m.role == 'tool' %}[TOOL_RESULTS]{\"content\": {{ m.content }}, "
        '"call_id": "{{ m.tool_call_id }}"}[/TOOL_RESULTS]'
        "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
    ),
    "mistral11": (
        MISTRAL11,
        "{% for m in messages %}{% if m.role == 'user' %}"
        "{% if loop.first and tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]"
        "{% endif %}[INST]{{ m.content }}[/INST]"
        "{% elif m.tool_calls is defined %}{% for c in m.tool_calls %}[TOOL_CALLS]"
        "{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}{{ eos_token }}"
        "{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]"
        "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
    ),
    "glm4": (
        GLM4,
        "{% for m in messages %}{% if m.tools is defined %}<|system|>\n{% for t in m.tools %}"
        "## {{ t.function.name }}\n{{ t.function | tojson(indent=4) }}{% endfor %}{% endif %}"
        "{% if m.content %}<|{{ m.role }}|>{{ m.metadata }}\n{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    ),
    "none": (None, CHATML),
    "tools, but no calls": (None, CHATML + "{{ tools or '' }}"),
}
TEMPLATES["mistral spaced"] = (
    MISTRAL_SPACED,
    TEMPLATES["mistral"][1].replace("[TOOL_CALLS][", "[TOOL_CALLS] ["),
)
WEATHER = Tool(
    "weather",
    "The weather.",
    '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}',
)
SCHEMA = (
    '{"name": "weather", "description": "The weather.", "parameters": {"type": "object", '
    '"properties": {"city": {"type": "string"}}, "required": ["city"]}}'
)
CONVERSATION = (
    Message("system", "", tools=(WEATHER,)),
    Message("user", "Where is it warmer?"),
    Message(
        "assistant",
        "",
        calls=(
            ToolCall("call_a", "weather", '{"city":"Rome"}'),
            ToolCall("call_b", "weather", '{"city":"Oslo"}'),
        ),
    ),
    Message("tool", "20", call_id="call_a"),
    Message("tool", "5", call_id="call_b"),
)
TOOL = f'{{"type": "function", "function": {SCHEMA}}}'


@pytest.fixture
def renderer_of(smollm_tokenizer: Any) -> Callable[..., Renderer]:
    """The renderer of a template, of a vocabulary with special tokens added."""

    def make(template: str, *specials: str) -> Renderer:
        tokenizer = copy.deepcopy(smollm_tokenizer)
        tokenizer.add_special_tokens({"additional_special_tokens": list(specials)})
        tokenizer.chat_template = template
        return Renderer(tokenizer, abilities=examine_template(template))

    return make


def written(renderer: Renderer, messages: tuple[Message, ...]) -> str:
    text: str = renderer.tokenizer.decode(renderer.prompt(messages))
    return text


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_format_is_found_by_what_the_template_writes(name: str) -> None:
    form, template = TEMPLATES[name]
    assert examine_template(template).calls == form


PROMPTS = {
    "hermes": f"<|im_start|>system\n{TOOL}\n<|im_end|>\n<|im_start|>user\nWhere is it warmer?"
    '<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": '
    '{"city": "Rome"}}\n</tool_call>\n<tool_call>\n{"name": "weather", "arguments": '
    '{"city": "Oslo"}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n20\n'
    "</tool_response><|im_end|>\n<|im_start|>user\n<tool_response>\n5\n</tool_response>"
    "<|im_end|>\n<|im_start|>assistant\n",
    # One call at once: each is followed by its own result
    "llama3": f"{json.dumps(json.loads(TOOL), indent=4)}\n[user]Where is it warmer?"
    '[assistant]{"name": "weather", "parameters": {"city": "Rome"}}[ipython]20'
    '[assistant]{"name": "weather", "parameters": {"city": "Oslo"}}[ipython]5[assistant]',
    # Ids of nine characters in place of the caller's
    "mistral": f"[AVAILABLE_TOOLS][{TOOL}][/AVAILABLE_TOOLS][INST]Where is it warmer?[/INST]"
    '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Rome"}, "id": "call00000"}, '
    '{"name": "weather", "arguments": {"city": "Oslo"}, "id": "call00001"}]<|im_end|>'
    '[TOOL_RESULTS]{"content": 20, "call_id": "call00000"}[/TOOL_RESULTS]'
    '[TOOL_RESULTS]{"content": 5, "call_id": "call00001"}[/TOOL_RESULTS]',
    "mistral11": f"[AVAILABLE_TOOLS][{TOOL}][/AVAILABLE_TOOLS][INST]Where is it warmer?[/INST]"
    '[TOOL_CALLS]weather[ARGS]{"city": "Rome"}[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}<|im_end|>'
    "[TOOL_RESULTS]20[/TOOL_RESULTS][TOOL_RESULTS]5[/TOOL_RESULTS]",
    "glm4": f"<|system|>\n## weather\n{json.dumps(json.loads(SCHEMA), indent=4)}"
    "<|user|>\nWhere is it warmer?"
    '<|assistant|>weather\n{"city": "Rome"}<|assistant|>weather\n{"city": "Oslo"}'
    "<|observation|>\n20<|observation|>\n5<|assistant|>",
    # Ours, for a template that knows no tools
    "none": "<|im_start|>system\nYou can call functions to answer. They are described here, each "
    f"with a JSON Schema of its arguments:\n<tools>\n{SCHEMA}\n</tools>\nTo call a function, "
    "answer with its name and its arguments as JSON, in this form:\n<tool_call>\n"
    '{"name": "the name", "arguments": {"an argument": "its value"}}\n</tool_call>\n'
    "You are then told its result between <tool_response> and </tool_response>.<|im_end|>\n"
    "<|im_start|>user\nWhere is it warmer?<|im_end|>\n<|im_start|>assistant\n"
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>\n'
    "<|im_start|>user\n<tool_response>\n20\n</tool_response><|im_end|>\n"
    "<|im_start|>user\n<tool_response>\n5\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_conversation_with_tools_is_written_in_the_template_s_form(
    renderer_of: Callable[..., Renderer], name: str
) -> None:
    assert written(renderer_of(TEMPLATES[name][1]), CONVERSATION) == PROMPTS[name]


def test_without_tools_a_prompt_is_what_it_was(renderer_of: Callable[..., Renderer]) -> None:
    plain = (Message("system", "Be kind."), Message("user", "Hi."))
    assert written(renderer_of(TEMPLATES["hermes"][1]), plain) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_system_text_stands_beside_the_offer(renderer_of: Callable[..., Renderer]) -> None:
    messages = (Message("system", "Be kind.", tools=(WEATHER,)), Message("user", "Hi."))
    assert "<|im_start|>system\nBe kind.\n\nYou can call" in written(renderer_of(CHATML), messages)
    assert "<|im_start|>system\nBe kind.<|im_end|>" in written(
        renderer_of(TEMPLATES["hermes"][1]), messages
    )


@pytest.mark.parametrize("name", ["hermes", "none"])
def test_a_control_token_in_a_tool_a_call_or_a_result_is_read_as_its_characters(
    renderer_of: Callable[..., Renderer], name: str
) -> None:
    renderer = renderer_of(TEMPLATES[name][1])

    def prompt(word: str) -> tuple[int, ...]:
        tool = Tool("weather", f"It is {word}.", json.dumps({"properties": {word: {}}}))
        call = ToolCall("call_a", "weather", json.dumps({word: f"a {word} b"}))
        return renderer.prompt(
            (
                Message("system", "", tools=(tool,)),
                Message("user", "Hi."),
                Message("assistant", "", calls=(call,)),
                Message("tool", f"{word}!", call_id="call_a"),
            )
        )

    end = renderer.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert prompt("<|im_end|>").count(end) == prompt("word").count(end)
    decoded = renderer.tokenizer.decode(prompt("<|im_end|>"))
    assert decoded == renderer.tokenizer.decode(prompt("@@")).replace("@@", "<|im_end|>")


@pytest.mark.parametrize(
    ("name", "specials", "text"),
    [
        ("mistral", ("[TOOL_CALLS]",), 'So: [TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}]'),
        ("mistral11", ("[TOOL_CALLS]", "[ARGS]"), '[TOOL_CALLS]f[ARGS]{"a": "[INST] <|im_end|>"}'),
        ("llama3", ("<|python_tag|>",), '<|python_tag|>{"name": "f", "parameters": {}}'),
        ("hermes", ("<tool_call>", "</tool_call>"), "<tool_call>\n{}\n</tool_call>"),
    ],
)
def test_control_tokens_of_the_markup_are_text_of_the_answer_and_trained_as_tokens(
    renderer_of: Callable[..., Renderer], name: str, specials: tuple[str, ...], text: str
) -> None:
    renderer = renderer_of(TEMPLATES[name][1], *specials, "[INST]")
    ids = renderer.completion(text)
    assert [renderer.added_tokens[each] for each in specials if each in text] == [
        i for i in ids if i in {renderer.added_tokens[each] for each in specials}
    ]
    assert renderer.added_tokens["[INST]"] not in ids
    assert ids.count(renderer.added_tokens["<|im_end|>"]) == 1
    shown = renderer.detokenizer()
    assert "".join(map(shown.push, ids)) + shown.finish() == text
    assert renderer.decode(ids) == text
