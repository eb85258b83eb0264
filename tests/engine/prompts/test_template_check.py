"""A checkpoint's chat template is a program of a stranger's."""

from __future__ import annotations

import time

import pytest

from engine.errors import ModelUnavailable
from engine.models.catalogue import BaseModel
from engine.prompts.load import load_renderer
from engine.prompts.template_check import TemplateAbilities, examine_template

HOSTILE = {
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['__builtins__'] }}",
    "init": "{{ messages.__init__.__globals__ }}",
    "mutation": "{{ messages.append(1) }}",
    "attr filter": "{{ ('' | attr('__class__')).mro() }}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}",
    "huge range": "{{ range(10 ** 9) | list }}",
    "huge string": "{{ 'x' * 10 ** 11 }}",
    "doubling": "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(60) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "huge power": "{{ 9 ** (9 ** 9) }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "flood": "{% for i in range(90000) %}xxxxxxxx{% endfor %}",
    "syntax": "{% for %}",
}


@pytest.mark.integration
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_soon(name: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ModelUnavailable, match="chat template is refused"):
        examine_template(HOSTILE[name])
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{% generation %}"
        "{{ m | tojson }}{% endgeneration %}{% endfor %}{{ strftime_now('%Y') }}",
    ],
)
def test_an_ordinary_template_is_not(template: str) -> None:
    examine_template(template)


@pytest.mark.parametrize("name", ["tools", "documents"])
def test_what_transformers_leaves_empty_is_none(name: str) -> None:
    """And not undefined: many templates ask `is not none` before they loop over it."""
    template = (
        f"{{% if {name} is not none %}}{{{{ raise_exception('{name}') }}}}{{% endif %}}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    assert examine_template(template) == TemplateAbilities()


def test_the_embedded_models_template_is_not(smollm: BaseModel) -> None:
    load_renderer(smollm.folder)


GENERATION = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("ending", "unasked"),
    [
        ("", None),
        (
            "{% if enable_thinking is defined %}{% endif %}<think>",
            None,
        ),  # asks, and writes the same
        # As Qwen3 has it
        (
            "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>"
            "{% endif %}",
            True,
        ),
        ("{% if enable_thinking %}<think>{% else %}</think>{% endif %}", False),
    ],
)
def test_a_switch_for_thoughts_is_found_by_what_it_does(ending: str, unasked: bool | None) -> None:
    assert examine_template(GENERATION + ending).thinks_unasked is unasked
