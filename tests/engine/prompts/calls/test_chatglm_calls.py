"""Tools in ChatGLM's published layouts: the third and fourth have forms of their own, the others
read text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import InvalidInput
from engine.messages import Message
from engine.prompts.calls.formats import GLM4, HERMES
from engine.prompts.calls.keywords import CHATGLM3
from engine.prompts.load import load_renderer
from engine.serving.grammar import GrammarCompiler
from engine.tools import Tool, ToolCall, ToolChoice, WrittenCall
from tests.support.chatglm_folders import write_chatglm1, write_chatglm2, write_chatglm3, write_glm4

CLOCK = Tool(
    "clock",
    "The time.",
    '{"type": "object", "properties": {"zone": {"enum": ["北京"]}}, "required": ["zone"]}',
)
TOLD = (
    Message("system", "", tools=(CLOCK,)),
    Message("user", "How late?"),
    Message("assistant", "I look.", calls=(ToolCall("c", "clock", '{"zone":"北京"}'),)),
    Message("tool", "Noon.", call_id="c"),
)
OFFER = """
你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，\
你的任务是针对用户的问题和要求提供适当的答复和支持。

# 可用工具

## clock

{
    "name": "clock",
    "description": "The time.",
    "parameters": {
        "type": "object",
        "properties": {
            "zone": {
                "enum": [
                    "北京"
                ]
            }
        },
        "required": [
            "zone"
        ]
    }
}
在调用上述函数时，请使用 Json 格式表示调用的参数。"""

AS_TEXT = (
    "You can call functions to answer. They are described here, each with a JSON Schema of its "
    'arguments:\n<tools>\n{"name": "clock", "description": "The time.", "parameters": {"type": '
    '"object", "properties": {"zone": {"enum": ["北京"]}}, "required": ["zone"]}}\n</tools>\n'
    "To call a function, answer with its name and its arguments as JSON, in this form:\n"
    '<tool_call>\n{"name": "the name", "arguments": {"an argument": "its value"}}\n'
    "</tool_call>\nYou are then told its result between <tool_response> and </tool_response>."
)


OFFER3 = """\
Answer the following questions as best as you can. You have access to the following tools:
[
    {
        "name": "clock",
        "description": "The time.",
        "parameters": {
            "type": "object",
            "properties": {
                "zone": {
                    "enum": [
                        "北京"
                    ]
                }
            },
            "required": [
                "zone"
            ]
        }
    }
]"""
CALL3 = 'clock\n```python\ntool_call(zone="北京")\n```'


@pytest.fixture
def chatglm3(tmp_path: Path) -> Any:
    return load_renderer(write_chatglm3(tmp_path))


@pytest.fixture
def glm4(tmp_path: Path) -> Any:
    return load_renderer(write_glm4(tmp_path))


def named(renderer: Any, *names: str) -> list[int]:
    return [renderer.tokenizer.special_ids[name] for name in names]


def test_glm4_offers_tools_as_published(glm4: Any) -> None:
    encode = glm4.tokenizer.encode_text
    system, user, assistant, observation = (
        named(glm4, f"<|{role}|>") for role in ("system", "user", "assistant", "observation")
    )
    assert list(glm4.prompt(TOLD)) == [
        *glm4.tokenizer.prefix,
        *system,
        *encode(OFFER),
        *user,
        *encode("\nHow late?"),
        *assistant,
        *encode("\nI look."),
        *assistant,
        *encode('clock\n{"zone": "北京"}'),
        *observation,
        *encode("\nNoon."),
        *assistant,
    ]
    kind = Message("system", "Be kind.", tools=(CLOCK,))
    both = list(glm4.prompt([kind, *TOLD[1:]]))
    said = [*system, *encode("\nBe kind.")]
    at = len(glm4.tokenizer.prefix) + 1 + len(encode(OFFER))
    assert both[at : at + len(said)] == said


def test_glm4_opens_a_call_with_its_name_and_the_result_ends_it(glm4: Any) -> None:
    call = 'clock\n{"zone": "北京"}'
    encode = glm4.tokenizer.encode_text
    assert list(glm4.completion(call)) == [*encode(call), *named(glm4, "<|observation|>")]
    assert list(glm4.completion(call[:9], complete=False)) == encode(call[:9])
    for words in ("It is noon.", f"{call}\nSo?", f"So: {call}"):
        assert list(glm4.completion(words)) == [*encode(f"\n{words}"), *named(glm4, "<|user|>")]
    shown = glm4.detokenizer()
    ids = glm4.completion(call)[:-1]
    text = "".join(map(shown.push, ids)) + shown.finish()
    assert glm4.call_format.read(text).calls == (WrittenCall("clock", '{"zone": "北京"}'),)


def test_chatglm3_offers_tools_as_published(chatglm3: Any) -> None:
    message, prefix = chatglm3.tokenizer.message, chatglm3.tokenizer.prefix
    assistant = named(chatglm3, "<|assistant|>")
    assert list(chatglm3.prompt(TOLD)) == [
        *prefix,
        *message("system", OFFER3),
        *message("user", "How late?"),
        *message("assistant", "I look."),
        *message("assistant", CALL3.partition("\n")[2], "clock"),
        *message("observation", "Noon."),
        *assistant,
    ]
    kind = Message("system", "Be kind.", tools=(CLOCK,))
    both = [*prefix, *message("system", f"Be kind.\n{OFFER3}"), *message("user", "How late?")]
    assert list(chatglm3.prompt([kind, TOLD[1]])) == [*both, *assistant]


def test_chatglm3_opens_a_call_with_its_name_and_the_result_ends_it(chatglm3: Any) -> None:
    call = chatglm3.tokenizer.message("assistant", CALL3.partition("\n")[2], "clock")[1:]
    assert list(chatglm3.completion(CALL3)) == [*call, *named(chatglm3, "<|observation|>")]
    shown = chatglm3.detokenizer()
    text = "".join(map(shown.push, call)) + shown.finish()
    assert chatglm3.call_format.read(text).calls == (WrittenCall("clock", '{"zone": "北京"}'),)
    for words in ("It is noon.", f"{CALL3}\nSo?", f"So: {CALL3}", CALL3[:-9], ""):
        plain = chatglm3.tokenizer.message("assistant", words)[1:]
        assert list(chatglm3.completion(words)) == [*plain, chatglm3.tokenizer.eos_id]


@pytest.mark.parametrize("write", [write_chatglm1, write_chatglm2])
def test_the_others_are_shown_tools_as_text(write: Callable[[Path], Path], tmp_path: Path) -> None:
    renderer: Any = load_renderer(write(tmp_path))
    assert renderer.call_format is HERMES
    call = '<tool_call>\n{"name": "clock", "arguments": {"zone": "北京"}}\n</tool_call>'
    plain = [
        Message("system", AS_TEXT),
        TOLD[1],
        Message("assistant", f"I look.\n{call}"),
        Message("user", "<tool_response>\nNoon.\n</tool_response>"),
    ]
    assert renderer.prompt(TOLD) == renderer.prompt(plain)


@pytest.mark.parametrize("write", [write_chatglm1, write_chatglm2, write_chatglm3, write_glm4])
def test_a_call_is_forced_over_each_vocabulary(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    renderer: Any = load_renderer(write(tmp_path))
    form = GLM4 if write is write_glm4 else CHATGLM3 if write is write_chatglm3 else HERMES
    assert form.read(forced(renderer, CLOCK)).calls == (WrittenCall("clock", '{"zone": "北京"}'),)


def forced(renderer: Any, tool: Tool) -> str:
    """The call of a tool that the grammar leaves, where it leaves one alone."""
    rows = renderer.token_count + 8
    matcher = GrammarCompiler(renderer, rows).compile_calls(
        [tool], ToolChoice("required", parallel=False), opening="", may_think=False
    )
    written = b""
    while not matcher.is_complete:
        token_id = int(matcher.allow(torch.zeros(rows)).argmax())
        if token_id in renderer.end_ids:
            break
        matcher.advance(token_id)
        written += renderer.token_bytes(token_id)
    return written.decode()


def test_each_kind_of_argument_is_forced_as_a_keyword(chatglm3: Any) -> None:
    schema = {
        "type": "object",
        "properties": {
            "left out": {"const": 1},
            "yes": {"type": "boolean"},
            "in-it": {"$ref": "#/$defs/two"},
            "none": {"type": "null"},
        },
        "required": ["left out", "yes", "in-it", "none"],
        "$defs": {"two": {"const": [2, {"a": "b"}]}},
    }
    tool = Tool("try", "", json.dumps(schema))
    text = forced(chatglm3, tool)
    assert re.fullmatch(
        r"try\n ?```python\ntool_call\(\*\*\{\"left out\": 1\}, yes=(True|False), "
        r'\*\*\{"in-it": \[2, \{"a": "b"\}\]\}, none=null\)\n```',
        text.strip(),
    )
    (call,) = CHATGLM3.read(text).calls
    assert json.loads(call.arguments) | {"yes": 0} == {
        "left out": 1,
        "yes": 0,
        "in-it": [2, {"a": "b"}],
        "none": None,
    }


def test_a_schema_that_keywords_cannot_keep_is_refused(chatglm3: Any) -> None:
    cases: tuple[dict[str, Any], ...] = ({"minProperties": 2}, {"anyOf": []}, {"required": ["b"]})
    for more in cases:
        tool = Tool("try", "", json.dumps({"type": "object", "properties": {"a": {}}, **more}))
        with pytest.raises(InvalidInput, match="parameters of the tool try are refused"):
            forced(chatglm3, tool)
