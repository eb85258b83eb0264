"""ChatGLM-6B, ChatGLM2, ChatGLM3 and GLM-4 in their published layout, as they are trained.

Against numbers that the published code computed for tiny random models (`BURNISH_ORACLES`), our own
serving decoder, and torch's autograd on a plain forward pass of one row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import DynamicCache

from engine.kernels.portable import PortableKernels
from engine.models.architecture import Positions
from engine.models.catalogue import linear_shapes
from engine.models.kernel_selection import KernelChoice
from tests.support.chatglm_oracles import FIRST, OTHERS, Oracle
from tests.support.chatglm_weights import (
    BOS,
    CHATGLM1_SIZES,
    CHATGLM2_SIZES,
    GMASK,
    PROMPTS,
    WORDS,
    chatglm1_logits,
    write_chatglm1_weights,
    write_chatglm2_weights,
)
from tests.support.decoders import Runner, random_ids
from tuning.batch.forward import accept_layouts, layout_tensors, packing_blocker, positions_of
from tuning.batch.plan import Completion, TrainingPrompt, lay_out
from tuning.kernels.portable import TuningKernels
from tuning.models.loading import load_causal_lm
from tuning.quantized import QuantizedLinear, load_base
from tuning.soft_prompt import soft_prompt_model

ORACLE_CASES = ("short", "mask", "answer", "both", "gmask_mid", "noprefix", "chat2", "far")
TORCH = KernelChoice(PortableKernels(), "torch's own kernels")


def load(folder: Path) -> Any:
    return load_causal_lm(folder, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model: Any, ids: list[int]) -> Tensor:
    found: Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return found


@pytest.mark.parametrize("family", [FIRST, *OTHERS])
def test_logits_are_those_of_the_published_code(family: str) -> None:
    oracle = Oracle(family)
    model = load(oracle.folder)
    for case in ORACLE_CASES:
        if f"{case}.input_ids" not in oracle:
            continue
        found = logits(model, oracle[f"{case}.input_ids"].tolist())
        if f"{case}.logits" in oracle:
            oracle.assert_close(found, oracle[f"{case}.logits"])
        else:
            oracle.assert_close(found[-1], oracle[f"{case}.logits_last"])


@pytest.mark.parametrize("family", [FIRST, *OTHERS])
def test_so_are_those_of_a_padded_batch(family: str) -> None:
    """Padding on the left, as the published code pads, and on the right, as trl does."""
    oracle = Oracle(family)
    model = load(oracle.folder)
    ids, expected = oracle["batch.input_ids"], oracle["batch.logits"]
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    with torch.no_grad():
        left = model(input_ids=ids, attention_mask=mask).logits
        turned = model(input_ids=ids[1:].roll(-4, 1), attention_mask=mask[1:].roll(-4, 1)).logits
    oracle.assert_close(left[mask == 1], expected[mask == 1])
    oracle.assert_close(turned[0, :-4], expected[1, 4:])


@pytest.mark.parametrize("size", CHATGLM2_SIZES)
def test_a_chatglm2_of_any_size_is_trained_as_it_is_served(size: str, tmp_path: Path) -> None:
    write_chatglm2_weights(tmp_path, **CHATGLM2_SIZES[size])
    ids = random_ids(50, seed=1)
    served = Runner.of(tmp_path, TORCH).logits(ids)
    torch.testing.assert_close(logits(load(tmp_path), ids), served, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", CHATGLM1_SIZES)
def test_a_chatglm_6b_of_any_size_is_trained_as_it_is_served(size: str, tmp_path: Path) -> None:
    write_chatglm1_weights(tmp_path, **CHATGLM1_SIZES[size])
    model, runner = load(tmp_path), Runner.of(tmp_path, TORCH)
    for ids in PROMPTS.values():
        torch.testing.assert_close(logits(model, ids), runner.logits(ids), rtol=0, atol=2e-4)


# Packs


def write(family: int, folder: Path) -> None:
    if family == 1:
        write_chatglm1_weights(folder, heads=4, hidden=64, inner=96, layers=2, eps=1e-5)
    else:
        write_chatglm2_weights(folder)


def with_adapter(folder: Path) -> PeftModel:
    """The model with LoRA on every linear layer, which changes something already."""
    torch.manual_seed(0)
    names = sorted({name.rsplit(".", 1)[-1] for name in linear_shapes(folder)})
    config = LoraConfig(r=4, lora_alpha=8, target_modules=names, task_type="CAUSAL_LM")
    model = get_peft_model(load_causal_lm(folder, dtype=torch.float32), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def scored(*ids: int) -> Completion:
    return Completion(ids, (True,) * len(ids))


QUESTION = (*WORDS[:20], GMASK, BOS)
PACKED = [
    TrainingPrompt(QUESTION, (scored(*WORDS[20:32]), scored(*WORDS[32:39]))),
    TrainingPrompt((), (Completion((GMASK, BOS, *WORDS[40:50]), (False, False) + (True,) * 10),)),
]
# Of each row of a grid: its prompt, and the completion that is scored
ROWS = {0: (QUESTION, WORDS[20:32]), 1: ((GMASK, BOS), WORDS[40:50]), 2: (QUESTION, WORDS[32:39])}
GRID = (4, 60)


def packed_scores(model: PeftModel, positions: Positions) -> Tensor:
    layout = layout_tensors(lay_out(PACKED, positions))
    labels = torch.zeros(*GRID, dtype=torch.long)
    found: Tensor = model(layout=layout, labels=labels, fused_lm_head=True).log_probs
    return found


def row_scores(model: PeftModel) -> Tensor:
    """Each row by a plain forward pass of its own, through transformers and peft alone."""
    grid = torch.zeros(GRID[0], GRID[1] - 1)
    for row, (prompt, completion) in ROWS.items():
        ids = torch.tensor([*prompt, *completion])
        tables = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        own = tables[:-1].gather(1, ids[1:, None])[len(prompt) - 1 :, 0]
        grid[row, len(prompt) - 1 : len(ids) - 1] = own
    return grid


def scores_and_gradients(scores: Tensor, model: PeftModel) -> tuple[Tensor, dict[str, Tensor]]:
    torch.autograd.backward(scores.square().sum())
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return scores.detach(), gradients


@pytest.mark.parametrize("family", [1, 2])
def test_a_pack_has_the_scores_and_gradients_of_its_rows_alone(
    family: int, kernels: TuningKernels, tmp_path: Path
) -> None:
    """A ChatGLM-6B's two position channels and prefix mask are each row's own."""
    write(family, tmp_path)
    ours, plain = with_adapter(tmp_path), with_adapter(tmp_path)
    assert packing_blocker(ours) is None
    accept_layouts(ours, kernels)
    found, gradients = scores_and_gradients(packed_scores(ours, positions_of(ours)), ours)
    expected, of_rows = scores_and_gradients(row_scores(plain), plain)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    assert gradients.keys() == of_rows.keys()
    assert len(of_rows) == 2 * 4 * 2  # A and B of four linear layers in two blocks
    for name, gradient in of_rows.items():
        assert (gradients[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("family", [1, 2])
def test_an_adapter_is_saved_under_the_published_names(family: int, tmp_path: Path) -> None:
    write(family, tmp_path)
    names = {
        name.removeprefix("base_model.model.").split(".lora_")[0]
        for name, parameter in with_adapter(tmp_path).named_parameters()
        if parameter.requires_grad
    }
    first = "transformer.layers.0.attention.query_key_value"
    other = "transformer.encoder.layers.0.self_attention.query_key_value"
    assert (first if family == 1 else other) in names
    assert names == linear_shapes(tmp_path).keys()


@pytest.mark.parametrize("family", [1, 2])
def test_a_base_is_held_in_few_bits(family: int, tmp_path: Path) -> None:
    write(family, tmp_path)
    held = load_base(tmp_path, "int8", torch.float32, "cpu").eval()
    layers = [held.get_submodule(name) for name in linear_shapes(tmp_path)]
    assert all(isinstance(layer, QuantizedLinear) for layer in layers)
    dense = logits(load(tmp_path), [*QUESTION])
    error = (logits(held, [*QUESTION]) - dense).norm() / dense.norm()
    assert 0 < error < 0.05  # 8 bits


# Virtual tokens


def virtual_tokens(model: Any, folder: Path) -> Tensor:
    """What peft saves of an adapter: (virtual tokens, width)."""
    model.save_pretrained(str(folder))
    return load_file(folder / "adapter_model.safetensors")["prompt_embeddings"]


@pytest.mark.parametrize("family", [1, 2])
def test_a_prefix_is_seen_by_every_token_and_takes_no_positions(
    family: int, tmp_path: Path
) -> None:
    model = soft_prompt_model(written(family, tmp_path), "prefix", 6, None).eval()
    torch.nn.init.normal_(model.prompt_encoder["default"].transform[2].bias)
    saved = virtual_tokens(model, tmp_path / "adapter").view(6, 2 * 2, -1, 16)
    ids = torch.tensor([QUESTION])
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    if family == 1:
        config = json.loads((tmp_path / "config.json").read_text())
        tensors = load_file(tmp_path / "model.safetensors")
        expected = chatglm1_logits(config, tensors, QUESTION, saved).float()
    else:
        cache = DynamicCache()
        for layer in range(2):
            key, value = (saved[:, 2 * layer + n].transpose(0, 1)[None] for n in (0, 1))
            cache.update(key, value, layer)
        (tmp_path / "peer").mkdir()
        peer = write_chatglm2_weights(tmp_path / "peer")
        with torch.no_grad():
            places = torch.arange(len(QUESTION))[None]
            expected = peer(ids, past_key_values=cache, position_ids=places).logits[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


def test_embeddings_before_the_prompt_are_tokens_like_others(tmp_path: Path) -> None:
    model = soft_prompt_model(written(2, tmp_path), "prompt", 6, None).eval()
    saved = virtual_tokens(model, tmp_path / "adapter")
    ids = torch.tensor([QUESTION])
    (tmp_path / "peer").mkdir()
    peer = write_chatglm2_weights(tmp_path / "peer")
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        embeddings = torch.cat([saved, peer.get_input_embeddings()(ids)[0]])
        expected = peer(inputs_embeds=embeddings[None]).logits[0]
    torch.testing.assert_close(found[-len(QUESTION) :], expected[6:], rtol=0, atol=2e-4)


def written(family: int, folder: Path) -> Any:
    write(family, folder)
    return load(folder)
