"""The Modelfile's template says what the checkpoint's own template says, or there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from deploy.export.formats import export_release
from deploy.export.ollama import ChatRow, Render, go_template, role_texts
from engine.errors import InvalidInput
from engine.models.catalogue import BaseModel
from tests.helpers import CHATML, make_bundle

DEFAULT_SYSTEM = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\n"
    "Be kind.<|im_end|>\n{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "<|begin|>{% for m in messages %}<|start|>{{ m.role }}<|end|>\n\n{{ m.content }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
JOINED = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.index0 == 1 and "
    "messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}{{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}</s>{% endif %}{% endfor %}"
)


def renderer_of(template: str) -> Render:
    compiled = ImmutableSandboxedEnvironment().from_string(template)

    def render(messages: Sequence[ChatRow], asks: bool) -> str:
        return compiled.render(messages=messages, add_generation_prompt=asks)

    return render


CONVERSATION: list[ChatRow] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello {{ you }}"},
    {"role": "user", "content": "Bye"},
]


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, LLAMA3])
@pytest.mark.parametrize("first", [0, 1])
def test_a_conversation_is_written_as_the_checkpoint_writes_it(template: str, first: int) -> None:
    render = renderer_of(template)
    conversation = CONVERSATION[first:]
    assert role_texts(render).render(conversation) == render(conversation, True)


def test_a_default_system_message_is_found() -> None:
    assert role_texts(renderer_of(DEFAULT_SYSTEM)).default_system == "Be kind."
    assert role_texts(renderer_of(CHATML)).default_system == ""


def test_a_template_that_joins_messages_is_refused() -> None:
    with pytest.raises(InvalidInput, match="chat template"):
        role_texts(renderer_of(JOINED))


def test_the_begin_token_that_llama_cpp_adds_is_not_said_twice() -> None:
    texts = role_texts(renderer_of(LLAMA3))
    assert "<|begin|>" in go_template(texts, "")
    assert "<|begin|>" not in go_template(texts, "<|begin|>")


def test_the_template_in_go() -> None:
    """Written by hand from Ollama's documentation of its templates."""
    assert go_template(role_texts(renderer_of(CHATML)), "") == (
        "{{ range $i, $m := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        '{{ if eq $m.Role "system" }}<|im_start|>system\n{{ $m.Content }}<|im_end|>\n{{ end }}'
        '{{ if eq $m.Role "user" }}<|im_start|>user\n{{ $m.Content }}<|im_end|>\n{{ end }}'
        '{{ if eq $m.Role "assistant" }}<|im_start|>assistant\n{{ $m.Content }}'
        "{{ if not $last }}<|im_end|>\n{{ end }}{{ end }}"
        '{{ if and $last (ne $m.Role "assistant") }}<|im_start|>assistant\n{{ end }}{{ end }}'
    )


def test_text_that_go_would_read_is_quoted() -> None:
    template = go_template(role_texts(renderer_of("{{ '{{' }}" + CHATML)), "")
    assert '{{ "{{" }}' in template


def test_the_modelfile_names_the_file_beside_it_and_the_end_of_an_answer(
    tiny_base: BaseModel, bundles: Path, tmp_path: Path
) -> None:
    bundle: Any = make_bundle(bundles, tiny_base)
    export_release(tiny_base, bundles, bundle, tmp_path / "out", "ollama", quantization="q4_1")
    lines = (tmp_path / "out" / "Modelfile").read_text().splitlines()
    (gguf,) = (tmp_path / "out").glob("*.gguf")
    assert lines[0] == f"FROM ./{gguf.name}"
    assert gguf.name.endswith("-q4_1.gguf")
    assert lines[1].startswith('TEMPLATE """{{ range')
    assert 'PARAMETER stop """<|im_end|>"""' in lines
