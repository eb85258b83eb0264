"""Adapters in memory: what peft computes, for each row of a batch by itself."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Glm4Config, GlmConfig, LlamaConfig, Qwen3Config

from engine.adapters.lora_matrices import LoraMatrices, StepAdapters
from engine.errors import InvalidBundle
from engine.kernels.native import NativeKernels
from engine.kernels.portable import PortableKernels
from engine.models.kernel_selection import KernelChoice
from engine.quantization import Quantization
from tests.support.chatglm_weights import BOS, GMASK, write_chatglm1_weights, write_chatglm2_weights
from tests.support.decoders import SIZES, Runner, random_ids, write_random

LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
GLM = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"]
IDS, OTHER = random_ids(45, seed=1), random_ids(20, seed=2)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    folder = tmp_path_factory.mktemp("llama")
    return folder, write_random(folder, LlamaConfig(**SIZES))


def train(model: nn.Module, folder: Path, seed: int = 0, **settings: Any) -> PeftModel:
    """A peft adapter of random matrices for a copy of `model`, saved in `folder`."""
    rank = settings.get("r", 4)
    config = LoraConfig(task_type="CAUSAL_LM", **{"r": rank, "lora_alpha": 2 * rank} | settings)
    adapted = get_peft_model(copy.deepcopy(model), config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.2 * rank**-0.25 * noise)
    adapted.save_pretrained(folder)
    return adapted


@torch.inference_mode()
def logits(model: nn.Module, ids: Sequence[int]) -> Tensor:
    found: Tensor = model(torch.tensor([list(ids)])).logits[0]
    return found


def load(folder: Path, runner: Runner, *, native: bool = False) -> LoraMatrices:
    return LoraMatrices(folder, runner.architecture.layout, device="cpu", native=native)


def assert_adapted(
    runner: Runner, adapter: LoraMatrices, adapted: nn.Module, base: nn.Module
) -> None:
    expected = logits(adapted, IDS)
    assert (expected - logits(base, IDS)).abs().max() > 0.05  # it really changes something
    torch.testing.assert_close(runner.logits(IDS, adapter), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 1},
        {"r": 4},
        {"r": 64},
        {"r": 8, "lora_alpha": 3},
        {"r": 4, "lora_alpha": 4, "use_rslora": True},
        {"r": 64, "lora_alpha": 8, "use_rslora": True},
    ],
    ids=str,
)
def test_an_adapter_of_any_rank_and_scaling_is_pefts(
    llama: tuple[Path, nn.Module], choice: KernelChoice, tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder, base = llama
    adapted = train(base, tmp_path, target_modules=LLAMA, **settings)
    runner = Runner.of(folder, choice)
    assert_adapted(runner, load(tmp_path, runner), adapted, base)


@pytest.mark.parametrize(
    "targets", [["q_proj", "v_proj"], ["k_proj"], ["o_proj"], ["up_proj"], ["down_proj"]], ids=str
)
def test_an_adapter_of_some_modules_leaves_the_others(
    llama: tuple[Path, nn.Module], choice: KernelChoice, tmp_path: Path, targets: list[str]
) -> None:
    folder, base = llama
    adapted = train(base, tmp_path, target_modules=targets)
    runner = Runner.of(folder, choice)
    assert_adapted(runner, load(tmp_path, runner), adapted, base)


def test_an_adapter_of_one_layer_leaves_the_others(
    llama: tuple[Path, nn.Module], choice: KernelChoice, tmp_path: Path
) -> None:
    folder, base = llama
    adapted = train(base, tmp_path, target_modules=["model.layers.1.mlp.gate_proj"])
    runner = Runner.of(folder, choice)
    assert_adapted(runner, load(tmp_path, runner), adapted, base)


FAMILIES = {
    "glm": (GlmConfig(**SIZES, head_dim=16, pad_token_id=0), GLM),
    "glm, wide heads": (GlmConfig(**SIZES, head_dim=24, pad_token_id=0), ["q_proj", "k_proj"]),
    "glm4": (Glm4Config(**SIZES, head_dim=16, pad_token_id=0), GLM),
    "qwen3": (Qwen3Config(**SIZES, head_dim=24), LLAMA),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_of_another_family_is_pefts(
    family: str, choice: KernelChoice, tmp_path: Path
) -> None:
    """GLM's queries and keys are held in another order than the checkpoint's."""
    config, targets = FAMILIES[family]
    base = write_random(tmp_path / "model", config)
    adapted = train(base, tmp_path / "adapter", target_modules=targets)
    runner = Runner.of(tmp_path / "model", choice)
    assert_adapted(runner, load(tmp_path / "adapter", runner), adapted, base)


def write_adapter(folder: Path, shapes: dict[str, tuple[int, int]], rank: int = 4) -> None:
    """A peft folder of random matrices for modules (out, in) that peft itself cannot reach."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for module, (out, inputs) in shapes.items():
        for side, shape in (("A", (rank, inputs)), ("B", (out, rank))):
            noise = torch.randn(shape, generator=generator)
            tensors[f"base_model.model.{module}.lora_{side}.weight"] = 0.3 * noise
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": 6}))


def merge(model: Path, adapter: Path, into: Path) -> Path:
    """The checkpoint with an adapter's change added to its weights."""
    weights = load_file(model / "model.safetensors")
    matrices = load_file(adapter / "adapter_model.safetensors")
    for key, a in matrices.items():
        if ".lora_A." in key:
            module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            weights[f"{module}.weight"] += 1.5 * matrices[key.replace("_A.", "_B.")] @ a  # 6 / 4
    into.mkdir()
    (into / "config.json").write_text((model / "config.json").read_text())
    save_file(weights, into / "model.safetensors")
    return into


@pytest.mark.parametrize("family", [1, 2])
def test_an_adapter_of_a_published_chatglm_is_what_its_merged_weights_are(
    family: int, choice: KernelChoice, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    if family == 1:
        write_chatglm1_weights(model, heads=3, hidden=48, inner=104, layers=2, eps=1e-5)
        layers = "transformer.layers"
        ids = [*random_ids(30, seed=1, vocabulary=100), GMASK, BOS]
        shapes = {"attention.query_key_value": (144, 48), "mlp.dense_4h_to_h": (48, 104)}
    else:
        write_chatglm2_weights(model)
        layers, ids = "transformer.encoder.layers", IDS
        shapes = {"self_attention.query_key_value": (128, 64), "mlp.dense_h_to_4h": (240, 64)}
    write_adapter(
        tmp_path / "adapter",
        {f"{layers}.{n}.{name}": shape for n in range(2) for name, shape in shapes.items()},
    )
    runner = Runner.of(model, choice)
    merged = Runner.of(merge(model, tmp_path / "adapter", tmp_path / "merged"), choice)
    expected = merged.logits(ids)
    assert (expected - runner.logits(ids)).abs().max() > 0.1
    found = runner.logits(ids, load(tmp_path / "adapter", runner))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


# Rows of several adapters in one batch


@pytest.fixture(scope="module")
def two(
    llama: tuple[Path, nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Adapters of different ranks and modules."""
    a, b = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    train(llama[1], a, seed=1, target_modules=LLAMA)
    train(llama[1], b, seed=2, r=16, target_modules=["q_proj", "down_proj"])
    return a, b


def run_mixed(
    runner: Runner, adapters: Sequence[LoraMatrices | None], kernels: NativeKernels | None
) -> list[Tensor]:
    """Logits of one text a row of `adapters`, computed in one batch, prompt and then answer."""
    texts = [(IDS, OTHER)[n % 2] for n in range(len(adapters))]
    begun = [runner.begin(ids, adapter) for ids, adapter in zip(texts, adapters, strict=True)]
    chunks = list(zip(begun, texts, strict=True))
    prompts = runner.step(*((text, ids[:-2]) for text, ids in chunks), kernels=kernels)
    tokens = [
        runner.step(*((text, [ids[n]]) for text, ids in chunks), kernels=kernels) for n in (-2, -1)
    ]
    return [torch.cat(parts) for parts in zip(prompts, *tokens, strict=True)]


def test_rows_of_two_adapters_and_none_are_as_each_alone(
    llama: tuple[Path, nn.Module], two: tuple[Path, Path], choice: KernelChoice
) -> None:
    runner = Runner.of(llama[0], choice)
    a, b = (load(folder, runner) for folder in two)
    adapters = [a, None, b, a]
    mixed = run_mixed(runner, adapters, None)
    for n, adapter in enumerate(adapters):
        alone = runner.logits((IDS, OTHER)[n % 2], adapter)
        torch.testing.assert_close(mixed[n], alone, rtol=0, atol=1e-4)
    assert (mixed[0] - mixed[2]).abs().max() > 0.05


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
def test_compiled_rows_of_two_adapters_and_none_are_as_each_alone_to_the_last_bit(
    llama: tuple[Path, nn.Module],
    two: tuple[Path, Path],
    native: NativeKernels,
    quantization: Quantization,
) -> None:
    runner = Runner.of(llama[0], KernelChoice(native, ""), quantization)
    a, b = (load(folder, runner, native=True) for folder in two)
    adapters = [a, None, b, a]
    mixed = run_mixed(runner, adapters, native)
    for n, adapter in enumerate(adapters):
        ids = (IDS, OTHER)[n % 2]
        (alone,) = runner.step((runner.begin(ids, adapter), ids), kernels=native)
        if quantization == "none":  # torch's dense products differ with the batch
            torch.testing.assert_close(mixed[n], alone, rtol=0, atol=1e-4)
        else:
            assert torch.equal(mixed[n], alone)
    assert (mixed[0] - mixed[2]).abs().max() > 0.05


def off_by(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("rank", [1, 4, 64, 256])
def test_half_precision_matrices_change_rows_as_whole_ones_do(
    llama: tuple[Path, nn.Module], native: NativeKernels, tmp_path: Path, rank: int
) -> None:
    train(llama[1], tmp_path, r=rank, target_modules=LLAMA)
    runner = Runner.of(llama[0], KernelChoice(native, ""))
    whole, half = load(tmp_path, runner), load(tmp_path, runner, native=True)
    rows = [0, 2, 3]  # the second of four has none
    for linear, inputs, out in (("qkv", 64, 128), ("out", 64, 64), ("up", 64, 272)):
        x, base = torch.randn(4, inputs), torch.randn(4, out)
        expected, found = base.clone(), base.clone()
        StepAdapters([whole, None, whole, whole], None).add(1, linear, x, expected)
        StepAdapters([half, None, half, half], native).add(1, linear, x, found)
        assert off_by((found - base)[rows], (expected - base)[rows]) < 2e-3
        assert torch.equal(found[1], base[1])
    assert (
        off_by(
            runner.step((runner.begin(IDS, half), IDS), kernels=native)[0],
            runner.logits(IDS, whole),
        )
        < 2e-3
    )


def test_adapters_in_all_blocks_at_once_are_those_of_each_block_to_the_last_bit(
    llama: tuple[Path, nn.Module], two: tuple[Path, Path], native: NativeKernels
) -> None:
    fused = Runner.of(llama[0], KernelChoice(native, ""), "int8")
    assert fused.decoder.fused is not None
    apart = Runner(fused.architecture, replace(fused.decoder, fused=None))
    a, b = (load(folder, fused, native=True) for folder in two)
    for one, other in zip(
        run_mixed(fused, [b, a, None], native), run_mixed(apart, [b, a, None], native), strict=True
    ):
        assert torch.equal(one, other)


def test_matrices_held_for_torch_are_never_dropped_by_the_compiled_blocks(
    llama: tuple[Path, nn.Module], two: tuple[Path, Path], native: NativeKernels
) -> None:
    runner = Runner.of(llama[0], KernelChoice(native, ""), "int8")
    whole, half = load(two[0], runner), load(two[0], runner, native=True)
    (expected,) = runner.step((runner.begin(IDS, half), IDS), kernels=native)
    assert off_by(runner.logits(IDS, whole), expected) < 0.02
    assert off_by(runner.logits(IDS), expected) > 0.1


# Folders that do not fit


@pytest.mark.parametrize(
    "odd",
    [
        "base_model.model.model.layers.7.mlp.up_proj.lora_A.weight",
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector",
    ],
)
@pytest.mark.parametrize("native", [False, True])
def test_a_matrix_for_no_module_of_the_model_is_refused_by_name(
    llama: tuple[Path, nn.Module], tmp_path: Path, odd: str, native: bool
) -> None:
    train(llama[1], tmp_path, target_modules=["q_proj"])
    file = tmp_path / "adapter_model.safetensors"
    save_file(load_file(file) | {odd: torch.zeros(4, 64)}, file)
    runner = Runner.of(llama[0], KernelChoice(PortableKernels(), ""))
    with pytest.raises(InvalidBundle, match=odd):
        load(tmp_path, runner, native=native)


@pytest.mark.parametrize("side", ["A", "B"])
def test_half_an_adapter_of_a_module_is_refused_by_name(
    llama: tuple[Path, nn.Module], tmp_path: Path, side: str
) -> None:
    train(llama[1], tmp_path, target_modules=["q_proj"])
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = f"base_model.model.model.layers.1.self_attn.q_proj.lora_{side}.weight"
    del tensors[name]
    save_file(tensors, file)
    runner = Runner.of(llama[0], KernelChoice(PortableKernels(), ""))
    with pytest.raises(InvalidBundle, match=r"layers\.1\.self_attn\.q_proj"):
        load(tmp_path, runner)
