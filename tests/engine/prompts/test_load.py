"""Where a checkpoint keeps its chat template, what the template takes, and its end tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.errors import InvalidInput, ModelUnavailable
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.prompts.load import load_renderer, load_template_renderer
from engine.prompts.render import Renderer
from engine.request import ScoreRequest
from tests.engine.conftest import StartEngine
from tests.helpers import CHATML, answer

OTHER = CHATML.replace("m.role", "m.role ~ '!'")
# As published with Gemma and with Mistral 7B Instruct 0.1, shortened
GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
SYSTEM, HELLO = Message("system", "Be kind."), Message("user", "Hello.")
HI, WHY = Message("assistant", "Hi."), Message("user", "Why?")


@pytest.fixture
def folder(tiny_base: BaseModel, tmp_path: Path) -> Path:
    """A copy of the tiny model without a chat template."""
    copy = Path(shutil.copytree(tiny_base.folder, tmp_path / "model"))
    (copy / "chat_template.jinja").unlink()
    return copy


def edit(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def shown(renderer: Any, *messages: Message) -> str:
    assert isinstance(renderer, Renderer)
    return renderer._tokenizer.decode(renderer.prompt(messages), skip_special_tokens=False)


def with_template(folder: Path, template: str) -> Renderer:
    (folder / "chat_template.jinja").write_text(template)
    renderer = load_renderer(folder)
    assert isinstance(renderer, Renderer)
    return renderer


class TestPlaces:
    @pytest.mark.parametrize("place", ["jinja", "config", "list", "named files", "processor"])
    def test_the_default_is_found_wherever_it_is_kept(self, folder: Path, place: str) -> None:
        config = folder / "tokenizer_config.json"
        if place == "jinja":
            (folder / "chat_template.jinja").write_text(CHATML)
        elif place == "config":
            edit(config, chat_template=CHATML)
        elif place == "list":
            named = [("tool_use", OTHER), ("default", CHATML), ("rag", OTHER)]
            edit(config, chat_template=[{"name": n, "template": t} for n, t in named])
        elif place == "named files":
            (folder / "chat_template.jinja").write_text(CHATML)
            (folder / "additional_chat_templates").mkdir()
            (folder / "additional_chat_templates" / "tool_use.jinja").write_text(OTHER)
        else:
            (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHATML}))
        expected = "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"
        assert shown(load_renderer(folder), HELLO) == expected

    def test_none_at_all_is_refused_with_the_remedy(
        self, folder: Path, tmp_path: Path, start: StartEngine
    ) -> None:
        base = resolve(str(folder), tmp_path / "cache")
        with pytest.raises(
            ModelUnavailable, match=r"no chat template; .*the folder as chat_template\.jinja"
        ):
            start(base)

    def test_none_called_default_is_refused_with_the_names(self, folder: Path) -> None:
        named = [{"name": "tool_use", "template": OTHER}, {"name": "rag", "template": OTHER}]
        edit(folder / "tokenizer_config.json", chat_template=named)
        with pytest.raises(ModelUnavailable, match=r"called 'default' \('rag', 'tool_use'\)"):
            load_renderer(folder)

    @pytest.mark.parametrize(
        "name", ["chat_template.json", "additional_chat_templates/default.jinja"]
    )
    def test_each_place_counts_in_the_digest(self, folder: Path, tmp_path: Path, name: str) -> None:
        before = resolve(str(folder), tmp_path / "cache").digest
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
        assert resolve(str(folder), tmp_path / "cache").digest != before


class TestWhatATemplateTakes:
    def test_a_refused_system_text_stands_in_front_of_the_first_question(
        self, folder: Path
    ) -> None:
        renderer = with_template(folder, GEMMA)
        assert shown(renderer, SYSTEM, HELLO, HI, WHY) == (
            "<|im_start|>user\nBe kind.\n\nHello.<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>\n"
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>model\n"
        )

    def test_an_empty_system_text_is_left_out(self, folder: Path) -> None:
        renderer = with_template(folder, GEMMA)
        assert renderer.prompt([Message("system", " "), HELLO]) == renderer.prompt([HELLO])

    def test_questions_in_a_row_become_one(self, folder: Path) -> None:
        assert shown(with_template(folder, GEMMA), HELLO, WHY) == (
            "<|im_start|>user\nHello.\n\nWhy?<|im_end|>\n<|im_start|>model\n"
        )

    def test_what_a_template_takes_is_left_as_it_is(self, folder: Path) -> None:
        assert shown(with_template(folder, CHATML), SYSTEM, HELLO, WHY) == (
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello.<|im_end|>\n"
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
        )

    def test_a_system_text_that_a_template_would_drop_is_shown(self, folder: Path) -> None:
        deaf = CHATML.replace("for m in messages", "for m in messages if m.role != 'system'")
        assert shown(with_template(folder, deaf), SYSTEM, HELLO).count("Be kind.\n\nHello.") == 1

    def test_any_other_refusal_is_quoted(self, folder: Path) -> None:
        renderer = with_template(folder, GEMMA)
        with pytest.raises(InvalidInput, match=r"chat template refuses this: .*must alternate"):
            renderer.prompt([HI, HELLO])

    def test_a_template_that_refuses_every_question_is_refused_at_start(self, folder: Path) -> None:
        with pytest.raises(ModelUnavailable, match="refuses this: not today"):
            with_template(folder, "{{ raise_exception('not today') }}")

    def test_an_engine_answers_whatever_the_page_sends(
        self, folder: Path, tmp_path: Path, start: StartEngine
    ) -> None:
        (folder / "chat_template.jinja").write_text(GEMMA)
        engine = start(resolve(str(folder), tmp_path / "cache"))
        assert engine.count_prompt_tokens([SYSTEM, HELLO, WHY]) > 10
        assert answer(engine, "Hello.", max_new_tokens=3).completion_tokens

    def test_training_sees_what_serving_sees(self, folder: Path) -> None:
        serving = with_template(folder, GEMMA)
        tuning = load_template_renderer(folder)
        assert tuning.pair([SYSTEM, HELLO], "Hi.") == serving.pair([SYSTEM, HELLO], "Hi.")


class TestEndTokens:
    def test_generation_config_tokenizer_and_template_all_count(self, folder: Path) -> None:
        edit(folder / "generation_config.json", eos_token_id=[7, 8])
        edit(folder / "tokenizer_config.json", eos_token="<|endoftext|>")
        renderer = with_template(folder, CHATML)
        assert renderer.end_ids == {0, 2, 7, 8}  # <|endoftext|> and <|im_end|> are 0 and 2
        assert renderer.completion("Hi.")[-1] == 2  # what the template writes after an answer

    def test_without_any_the_model_is_refused(self, folder: Path) -> None:
        for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
            edit(folder / name, eos_token_id=None, eos_token=None)
        with pytest.raises(ModelUnavailable, match="nothing says which token ends an answer"):
            with_template(folder, "{% for m in messages %}{{ m.content }}\n{% endfor %}")


class TestTokensBeyondTheEmbedding:
    def cut(self, folder: Path, rows: int) -> None:
        """Leave the model `rows` of its 340 tokens, or pad it to them."""
        edit(folder / "config.json", vocab_size=rows)
        tensors = load_file(folder / "model.safetensors")
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            old = tensors[name]
            new = old.new_zeros(rows, old.shape[1])
            new[: len(old)] = old[:rows]
            tensors[name] = new
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def test_a_text_that_needs_one_is_refused_by_name(self, folder: Path) -> None:
        renderer = with_template(folder, CHATML)
        last = renderer._tokenizer.decode([339], skip_special_tokens=False)
        self.cut(folder, 339)
        renderer = with_template(folder, CHATML)
        assert renderer.prompt([HELLO])
        with pytest.raises(InvalidInput, match=r"token 339, and the model knows tokens below 339"):
            renderer.prompt([Message("user", last)])

    def test_an_end_token_without_one_is_refused_at_start(self, folder: Path) -> None:
        edit(folder / "config.json", vocab_size=2)  # <|im_end|> is token 2
        with pytest.raises(ModelUnavailable, match=r"cannot use .* knows tokens below 2 alone"):
            with_template(folder, CHATML)

    def padded(self, folder: Path) -> None:
        """Give the model 12 rows that are no token and would be the likeliest ones."""
        (folder / "chat_template.jinja").write_text(CHATML)
        self.cut(folder, 352)
        tensors = load_file(folder / "model.safetensors")
        head = tensors["lm_head.weight"]
        head[340:346], head[346:] = 10 * head[:6], -10 * head[:6]  # one of two signs is large
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    @pytest.mark.parametrize("temperature", [0, 1.5])
    def test_rows_that_are_no_token_are_never_drawn(
        self, folder: Path, tmp_path: Path, start: StartEngine, temperature: float
    ) -> None:
        self.padded(folder)
        engine = start(resolve(str(folder), tmp_path / "cache"))
        done = answer(engine, "Why?", temperature=temperature, seed=1, logprobs=1, ignore_eos=True)
        assert done.completion_tokens == 24
        assert all(token.token_id < 340 for token in done.logprobs)

    def test_they_have_no_share_in_a_probability(
        self, folder: Path, tmp_path: Path, start: StartEngine
    ) -> None:
        """A score is the log-probability that a streamed token has, over the tokens alone."""
        self.padded(folder)
        rendered = load_renderer(folder).pair([WHY], "T", complete=False)
        (token_id,) = rendered.completion_ids
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.inference_mode():
            logits = model(torch.tensor([rendered.prompt_ids])).logits[0, -1]
        engine = start(resolve(str(folder), tmp_path / "cache"))
        [score] = engine.score([ScoreRequest((WHY,), "T", complete=False)])
        forced = answer(
            engine, "Why?", max_new_tokens=1, logprobs=0, logit_bias=((token_id, 100.0),)
        )
        expected = float(logits[:340].log_softmax(-1)[token_id])
        assert forced.logprobs[0].logprob == pytest.approx(expected, abs=1e-4)
        assert score.token_logprobs == pytest.approx([expected], abs=1e-4)
        assert abs(expected - float(logits.log_softmax(-1)[token_id])) > 1
