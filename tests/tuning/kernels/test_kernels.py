"""The compiled kernels of tuning against torch, alone and inside a model."""

from __future__ import annotations

import copy
import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.functional import silu
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Glm4MoeConfig,
    LlamaConfig,
    MistralConfig,
    NemotronConfig,
    Qwen2Config,
    Qwen3Config,
)

from tuning.batch.forward import accept_layouts, layout_tensors, packing_blocker
from tuning.batch.plan import Completion, PackLayout, TrainingPrompt, lay_out
from tuning.kernels import PORTABLE, choose_kernels
from tuning.kernels.native import NativeTuningKernels
from tuning.kernels.portable import PortableTuningKernels, SoftmaxSums, TuningKernels

FORMATS = pytest.mark.parametrize(
    ("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=["fp32", "bf16"]
)
TOKENS, WIDTH = 37, 96


def some(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_near(found: Tensor, expected: Tensor, apart: float) -> None:
    assert found.shape == expected.shape
    assert float((found.float() - expected.float()).norm()) <= apart * float(
        expected.float().norm()
    )


def gradient(function: Any, x: Tensor, upstream: Tensor) -> Tensor:
    """By torch, in double precision."""
    x = x.double().requires_grad_()
    (found,) = torch.autograd.grad(function(x), x, upstream.double())
    return found


@FORMATS
@pytest.mark.parametrize("width", [WIDTH, 20])  # 20: fills no register, and goes torch's way
def test_rms_norm_and_its_gradient(
    kernels: TuningKernels, dtype: torch.dtype, apart: float, width: int
) -> None:
    x, dy = (some(2, TOKENS, width, dtype=dtype, seed=seed) for seed in (0, 1))
    weight = some(width, dtype=dtype, seed=2)

    def norm(x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.to(x.dtype)

    y, scale = kernels.rms_norm(x, weight, 1e-5)
    assert y.dtype == dtype
    assert_near(y, norm(x.double()), apart)
    dx = kernels.rms_norm_backward(dy, x, weight, scale)
    assert dx.dtype == dtype
    assert_near(dx, gradient(norm, x, dy), apart)


@FORMATS
def test_gated_silu_and_its_gradients(
    kernels: TuningKernels, dtype: torch.dtype, apart: float
) -> None:
    gate, up, dy = (3 * some(TOKENS, WIDTH, dtype=dtype, seed=seed) for seed in range(3))
    y = silu(gate.double()) * up.double()
    assert_near(kernels.gated_silu(gate, up), y, apart)
    dup = dy.clone()
    again, dgate = kernels.gated_silu_backward(dup, gate, up)
    assert_near(again, y, apart)
    assert_near(dgate, gradient(lambda g: silu(g) * up.double(), gate, dy), apart)
    assert_near(dup, dy.double() * silu(gate.double()), apart)


@FORMATS
@pytest.mark.parametrize("dim", [64, 24])
def test_rotating_turns_pairs_of_channels_and_back(
    kernels: TuningKernels, dtype: torch.dtype, apart: float, dim: int
) -> None:
    """Channel i and i + dim / 2 are the parts of a complex number that is turned by an angle."""
    x = some(TOKENS, 3, dim, dtype=dtype)
    angles = 2 * math.pi * torch.rand(TOKENS, dim // 2)
    cos, sin = (both.repeat(1, 2).to(dtype) for both in (angles.cos(), angles.sin()))
    turned = x.clone()
    kernels.rotate(turned, cos, sin)
    by_hand = torch.complex(*x.float().chunk(2, -1)) * torch.polar(torch.ones(1), angles)[:, None]
    assert_near(turned, torch.cat([by_hand.real, by_hand.imag], -1), apart)
    kernels.rotate(turned, cos, sin, back=True)
    assert_near(turned, x, 2 * apart)


@FORMATS
def test_a_softmax_over_tiles_has_the_sums_of_one_over_all(
    kernels: TuningKernels, dtype: torch.dtype, apart: float
) -> None:
    """Tiles of 32, 32 and 6 words; one row's logits lie so far apart that most weights vanish."""
    logits = some(TOKENS, 70, dtype=dtype)
    logits[3] *= 100
    targets = torch.arange(TOKENS) % 70
    sums = SoftmaxSums.of(TOKENS, torch.device("cpu"))
    mean = torch.zeros(TOKENS)
    for first in (0, 32, 64):
        words = torch.arange(first, min(first + 32, 70)).float()
        # a part of a wider buffer, as the head has it
        weights, rescale = kernels.softmax_tile(
            logits.clone()[:, first : first + 32], targets, first, sums
        )
        mean = mean * rescale + weights.float() @ words
    exact = logits.double()
    assert_near(sums.highest, exact.amax(-1), 1e-6)
    assert_near(sums.highest + sums.total.log(), exact.logsumexp(-1), 1e-6)
    assert_near(sums.logits, exact.sum(-1), 1e-5)
    assert_near(sums.own, exact.gather(1, targets[:, None])[:, 0], 1e-6)
    assert_near(mean / sums.total, exact.softmax(-1) @ torch.arange(70).double(), apart)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_no_number_stays_none(native: NativeTuningKernels, wrong: float) -> None:
    """So that a run whose numbers have left the format stops."""
    for dtype in (torch.float32, torch.bfloat16):
        x = some(4, 32, dtype=dtype)
        x[2, 7] = wrong
        y, _ = native.rms_norm(x, torch.ones(32, dtype=dtype), 1e-5)
        assert y.isnan().any(-1).tolist() == [False, False, True, False]
        q = torch.cat([x, some(3, 32, dtype=dtype)]).view(7, 1, 32)
        seen, _ = native.attend(q, q, q, [(0, 0, 0, 4), (4, 4, 4, 7)], 1.0)
        # a tile of rows may share it, another segment never
        assert seen.isnan().flatten(1).any(-1).tolist()[2:] == [True] * 2 + [False] * 3
        sums = SoftmaxSums.of(4, torch.device("cpu"))
        native.softmax_tile(x, torch.zeros(4, dtype=torch.long), 0, sums)
        assert sums.total.isnan().tolist() == [False, False, True, False]


def test_equal_inputs_give_equal_bits(native: NativeTuningKernels) -> None:
    """A resumed run goes on to the same numbers."""
    q, k, v, dy = (some(300, heads, 64, seed=heads) for heads in (6, 2, 2, 6))
    segments = [(0, 0, 0, 170), (0, 70, 170, 300)]

    def once() -> list[Tensor]:
        seen = native.attend(q, k, v, segments, 0.1)
        return [*seen, *native.attend_backward(dy, q, k, v, *seen, segments, 0.1)]

    assert all(torch.equal(a, b) for a, b in zip(once(), once(), strict=True))


class Counting(NativeTuningKernels):
    """The compiled kernels, and how often each was asked for."""

    def __init__(self, native: NativeTuningKernels) -> None:
        self.__dict__ |= native.__dict__
        self.counts: dict[str, int] = {}

    def __getattribute__(self, name: str) -> Any:
        if hasattr(PortableTuningKernels, name) and not name.startswith("_"):
            counts = object.__getattribute__(self, "counts")
            counts[name] = counts.get(name, 0) + 1
        return super().__getattribute__(name)


SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 112,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
KINDS = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "glm4": Glm4MoeConfig,
}
CHANGED = {"mistral": {"sliding_window": None}}
ATTENTION = {"attend": 2, "attend_backward": 2, "softmax_tile": 1}
GATED = {"gated_silu": 2, "gated_silu_backward": 2}


def norms(count: int) -> dict[str, int]:
    """Nothing is trained before the first."""
    return {"rms_norm": count, "rms_norm_backward": count - 1}


LLAMA_LIKE = ATTENTION | GATED | norms(5) | {"rotate": 8}
# Qwen3 norms each head, GLM-4.5 turns half of each: there attention alone is ours, and not the
# block around it. GLM-4.5's feed-forward blocks are experts.
COUNTS = {
    "llama": LLAMA_LIKE,
    "mistral": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": ATTENTION | GATED | norms(9),
    "glm4": ATTENTION | norms(5),
}
PACK = lay_out(
    [
        TrainingPrompt(
            tuple(range(3, 33)),
            (Completion(tuple(range(40, 70)), (True,) * 30), Completion((5, 6, 7), (True,) * 3)),
        ),
        TrainingPrompt((9, 8), (Completion(tuple(range(50, 90)), (True,) * 40),)),
    ]
)


def tuned(kind: str, folder: Path) -> PeftModel:
    """A random model whose adapter does something already."""
    torch.manual_seed(0)
    config = KINDS[kind](**(SHAPE | CHANGED.get(kind, {})))
    config.save_pretrained(folder)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=names, task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def log_probs_and_gradients(
    model: PeftModel, layout: PackLayout
) -> tuple[Tensor, dict[str, Tensor]]:
    rows = torch.zeros(4, 100, dtype=torch.long)
    found = model(layout=layout_tensors(layout), labels=rows, fused_lm_head=True).log_probs
    torch.autograd.backward(found.square().sum())
    return found.detach(), {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }


def log_probs_of_peft(model: PeftModel, layout: PackLayout) -> Tensor:
    """By transformers and peft alone, one branch at a time."""
    found = torch.zeros(4, 99)
    prompts = [
        (0, PACK.input_ids[:60]),
        (2, PACK.input_ids[:30] + PACK.input_ids[60:63]),
        (1, PACK.input_ids[63:]),
    ]
    for row, ids in prompts:
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        own = logits.float().log_softmax(-1)[range(len(ids) - 1), list(ids[1:])]
        scored = [c for r, c in zip(layout.rows, layout.columns, strict=True) if r == row]
        found[row, scored] = own[scored]
    return found


def of_peft(model: PeftModel, layout: PackLayout) -> tuple[Tensor, dict[str, Tensor]]:
    """The same, and the gradients."""
    found = log_probs_of_peft(model, layout)
    torch.autograd.backward(found.square().sum())
    return found.detach(), {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_computes_what_it_does_by_peft(
    native: NativeTuningKernels, tmp_path: Path, kind: str
) -> None:
    counting = Counting(native)
    ours = tuned(kind, tmp_path)
    accept_layouts(ours, counting)
    found, gradients = log_probs_and_gradients(ours, PACK)
    expected, of_theirs = of_peft(tuned(kind, tmp_path), PACK)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == of_theirs.keys()
    assert len(gradients) >= 2 * 2 * 4
    for name, gradient_of_peft in of_theirs.items():
        assert_near(gradients[name], gradient_of_peft, 1e-4)
    assert counting.counts == COUNTS[kind]


def test_a_model_whose_layers_keep_what_attention_needs_is_left_to_trl() -> None:
    model = AutoModelForCausalLM.from_config(NemotronConfig(**SHAPE)).requires_grad_(False)
    assert packing_blocker(model) == "its layers do not pass segments on to attention"
    model(input_ids=torch.tensor([[5, 6, 7]]))  # and it works as before


def test_an_adapter_that_is_off_does_nothing(native: NativeTuningKernels, tmp_path: Path) -> None:
    """So is the base model the reference."""
    ours, theirs = tuned("llama", tmp_path), tuned("llama", tmp_path)
    accept_layouts(ours, native)
    with ours.disable_adapter(), theirs.disable_adapter(), torch.no_grad():
        rows = torch.zeros(4, 100, dtype=torch.long)
        found = ours(layout=layout_tensors(PACK), labels=rows, fused_lm_head=True).log_probs
        expected = log_probs_of_peft(theirs, PACK)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_bf16_weights_under_an_fp32_adapter_are_as_good_as_by_peft(
    native: NativeTuningKernels, tmp_path: Path
) -> None:
    """Neither is the truth: that is the same model in fp32, and both are as far from it."""
    rounded = tuned("llama", tmp_path)
    for name, parameter in rounded.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.to(torch.bfloat16)
    truth = copy.deepcopy(rounded).float()
    theirs = copy.deepcopy(rounded)
    accept_layouts(rounded, native)
    _, of_truth = of_peft(truth, PACK)
    errors = [
        sum(float((found[n].float() - true).norm() / true.norm()) for n, true in of_truth.items())
        for found in (log_probs_and_gradients(rounded, PACK)[1], of_peft(theirs, PACK)[1])
    ]
    assert 0 < errors[0] <= 1.5 * errors[1]
    assert errors[1] / len(of_truth) < 0.02


class TestChoice:
    def test_without_a_cache_torch_computes(self) -> None:
        choice = choose_kernels(None)
        assert choice.kernels is PORTABLE
        assert choice.reason == "torch's own kernels, as asked for"

    def test_without_a_compiler_torch_computes_and_the_reason_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compiling = importlib.import_module("engine.kernels.build")  # `build` is a function, too
        monkeypatch.setattr(compiling, "_processor", lambda: "flags : avx2 fma f16c")
        monkeypatch.setattr("shutil.which", lambda _: None)
        choice = choose_kernels(tmp_path)
        assert choice.kernels is PORTABLE
        assert "no C++ compiler" in choice.reason

    def test_kernels_that_compute_something_else_are_not_used(
        self, native: NativeTuningKernels, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def wrong(*arguments: Any) -> tuple[Tensor, Tensor]:
            result, log_sums = PORTABLE.attend(*arguments)
            return result * 1.01, log_sums.contiguous()

        monkeypatch.setattr(NativeTuningKernels, "attend", lambda _, *arguments: wrong(*arguments))
        choice = choose_kernels(kernel_cache)
        assert choice.kernels is PORTABLE
        assert "disagree" in choice.reason
