"""Models whose chat template has a switch for thoughts: prompts, their count, and answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.prompts.load import load_renderer
from engine.prompts.render import Renderer
from engine.request import GenerationRequest, SamplingParams, collect
from tests.engine.conftest import StartEngine
from tests.helpers import CHATML

# As Qwen3's ends: told not to think, it finds its thought written and empty
SWITCH = CHATML.replace(
    "{% if add_generation_prompt %}<|im_start|>assistant\n",
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}",
)
QUESTION = (Message("user", "Why?"),)
SHORT = SamplingParams(temperature=0, max_new_tokens=4, ignore_eos=True)


@pytest.fixture
def thinker(tiny_base: BaseModel, tmp_path: Path) -> BaseModel:
    """The tiny model with a switch in its template."""
    folder = Path(shutil.copytree(tiny_base.folder, tmp_path / "model"))
    assert SWITCH != CHATML
    (folder / "chat_template.jinja").write_text(SWITCH)
    return resolve(str(folder), tmp_path / "cache")


def test_the_template_is_told_and_without_a_word_it_decides(thinker: BaseModel) -> None:
    renderer = load_renderer(thinker.folder)
    assert isinstance(renderer, Renderer)
    written = {
        thinking: renderer._tokenizer.decode(
            renderer.prompt(QUESTION, thinking=thinking), skip_special_tokens=False
        )
        for thinking in (None, True, False)
    }
    begun = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert written == {None: begun, True: begun, False: f"{begun}<think>\n\n</think>\n\n"}
    assert renderer.opened_prompt(QUESTION, thinking=False).opening == ""  # the block is closed
    assert renderer.thinks_unasked is True


def test_an_engine_counts_and_shows_the_prompt_that_was_asked_for(
    thinker: BaseModel, start: StartEngine
) -> None:
    engine = start(thinker)
    assert engine.thinks_unasked is True
    ends = {
        thinking: collect(engine.submit(GenerationRequest(QUESTION, SHORT, thinking=thinking)))
        for thinking in (True, False)
    }
    assert ends[False].prompt_tokens > ends[True].prompt_tokens
    for thinking, end in ends.items():
        assert end.prompt_tokens == engine.count_prompt_tokens(QUESTION, thinking)


def test_a_model_without_a_switch_is_asked_as_ever(
    tiny_base: BaseModel, start: StartEngine
) -> None:
    engine = start(tiny_base)
    assert engine.thinks_unasked is None
    assert engine.count_prompt_tokens(QUESTION, False) == engine.count_prompt_tokens(QUESTION)
