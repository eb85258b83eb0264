"""What a plan counts is what the libraries hold, and its decision follows from the sums."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor

from engine.errors import InvalidInput, ModelUnavailable
from engine.models.catalogue import BaseModel
from engine.models.presets import Preset
from tests.support.job_events import of_type
from tuning import preparation, quantized
from tuning.batch.forward import accept_layouts, layout_tensors
from tuning.batch.plan import Completion, TrainingPrompt, lay_out
from tuning.jobs.events import JobEvent, MemoryPlanned, NumberFormatChosen
from tuning.kernels import PORTABLE
from tuning.memory_plan import (
    CUDA_RESERVE_BYTES,
    GIB,
    Load,
    activation_bytes,
    adapter_parameters,
    frozen_weight_bytes,
    plan_memory,
    shape_of,
    table,
    training_parts,
)
from tuning.quantized import load_base
from tuning.recipe import Recipe
from tuning.weight_formats import NumberFormat, Weights

DOCS = Path(__file__).parents[2] / "docs" / "memory.md"
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TOKENS = 96


@pytest.fixture(scope="module")
def shape(tiny_base: BaseModel) -> Preset:
    return shape_of(str(tiny_base.folder))


def tuned(folder: Path, dtype: torch.dtype = torch.float32) -> PeftModel:
    config = LoraConfig(r=16, target_modules=LINEARS, task_type="CAUSAL_LM")
    return get_peft_model(load_base(folder, "dense", dtype, "cpu"), config)


def test_dense_weights_take_the_bytes_of_the_file(tiny_base: BaseModel, shape: Preset) -> None:
    tensors = load_file(tiny_base.folder / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    nbytes = sum(t.nbytes for t in tensors.values())
    assert frozen_weight_bytes(shape, "dense", "fp32") == nbytes
    assert frozen_weight_bytes(shape, "dense", "bf16") == nbytes // 2


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_weights_of_few_bits_take_the_bytes_of_the_layers_that_hold_them(
    tiny_base: BaseModel, shape: Preset, weights: Weights
) -> None:
    held: Any = load_base(tiny_base.folder, weights, torch.float32, "cpu")
    tables = 2 * held.model.rotary_emb.inv_freq.nbytes  # not weights: made from the config
    assert frozen_weight_bytes(shape, weights, "fp32") == quantized.held_weight_bytes(held) - tables


def test_nf4_takes_a_little_over_four_bits() -> None:
    """One matrix of 2^20: 2^19 bytes of codes, 2^14 scales of 8 bits, 2^6 of 32 bits."""
    matrix = Preset(
        name="",
        hub_id="",
        family="",
        licence="",
        layers=1,
        hidden_size=1 << 9,
        mlp_size=0,
        heads=1,
        kv_heads=0,
        head_dim=1 << 10,
        vocabulary=0,
        context_tokens=1,
    )
    assert matrix.linear_weights == 1 << 20
    norms = 2 * 3 * (1 << 9)  # bf16: two of the layer and the last
    expected = (1 << 19) + (1 << 14) + 4 * (1 << 6) + norms
    assert frozen_weight_bytes(matrix, "nf4", "bf16") == expected


def test_adapter_and_optimizer_take_what_peft_and_adamw_make(
    tiny_base: BaseModel, shape: Preset
) -> None:
    model = tuned(tiny_base.folder)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert adapter_parameters(shape, 16) == sum(p.numel() for p in trained)
    optimizer = torch.optim.AdamW(trained)
    model(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    optimizer.step()
    moments = [
        value
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    ]
    found = {part.name: part.nbytes for part in training_parts(shape, Load(TOKENS))}
    assert found["adapter"] == sum(p.nbytes for p in trained)
    assert found["gradients"] == sum(p.grad.nbytes for p in trained if p.grad is not None)
    assert found["optimizer"] == sum(m.nbytes for m in moments)


def kept_by_autograd(model: PeftModel, prompt: TrainingPrompt) -> int:
    """Bytes of the storages that the forward pass of a pack keeps, parameters aside."""
    accept_layouts(model, PORTABLE)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address returns
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        rows = torch.zeros(len(prompt.completions), prompt.tokens, dtype=torch.long)
        model(layout=layout_tensors(lay_out([prompt])), labels=rows, fused_lm_head=True)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def answer(tokens: int) -> Completion:
    return Completion(tuple(range(5, 5 + tokens)), (True,) * tokens)


@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
@pytest.mark.parametrize("pairs", [False, True])
def test_activations_take_what_autograd_keeps(
    tiny_base: BaseModel, shape: Preset, number_format: NumberFormat, pairs: bool
) -> None:
    """And a gradient of the hidden size for each scored token, which the plan has in `head`."""
    third = TOKENS // 3
    prompt = (
        TrainingPrompt(tuple(range(third)), (answer(third), answer(third)))
        if pairs
        else TrainingPrompt((), (answer(TOKENS),))
    )
    size = {"fp32": 4, "bf16": 2}[number_format]
    scored = 2 * third if pairs else TOKENS
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[number_format]
    kept = kept_by_autograd(tuned(tiny_base.folder, dtype), prompt)
    load = Load(TOKENS, "dense", number_format, pairs=pairs, checkpointing=False, device="cpu")
    planned = activation_bytes(shape, load) + size * scored * shape.hidden_size
    assert planned == pytest.approx(kept, rel=0.06)


def test_checkpointing_keeps_one_hidden_state_a_layer(shape: Preset) -> None:
    """Tiny: 2 layers of 32 numbers, and a last state and rotary tables of 8 outside of them."""
    load = Load(TOKENS, number_format="bf16", checkpointing=True)
    assert activation_bytes(shape, load) == TOKENS * 2 * (2 * 32 + 32 + 2 * 8)


def test_the_decision_changes_at_the_byte_at_which_it_no_longer_fits(shape: Preset) -> None:
    load, serving = Load(TOKENS), 1000
    alone = sum(part.nbytes for part in training_parts(shape, load)) + CUDA_RESERVE_BYTES
    decisions = {
        alone + serving: "beside",
        alone + serving - 1: "sleep",
        alone: "sleep",
        alone - 1: "refuse",
    }
    for card_bytes, decision in decisions.items():
        plan = plan_memory(shape, load, card_bytes=card_bytes, serving_bytes=serving)
        assert (plan.decision, plan.training_bytes) == (decision, alone)
    reason = plan_memory(shape, load, card_bytes=GIB, serving_bytes=GIB).reason
    assert reason.startswith(
        "training takes 0.5 GiB, the serving engine 1.0 GiB, and the device has"
    )


def test_more_of_anything_takes_more() -> None:
    model = shape_of("qwen3-8b")
    less = Load(512, "nf4", "bf16", 8, pairs=False, checkpointing=True)

    def total(load: Load) -> int:
        return sum(part.nbytes for part in training_parts(model, load))

    changes: tuple[dict[str, Any], ...] = (
        {"tokens": 1024},
        {"weights": "int8"},
        {"weights": "dense"},
        {"number_format": "fp32"},
        {"rank": 16},
        {"pairs": True},
        {"checkpointing": False},
    )
    for more in changes:
        assert total(replace(less, **more)) > total(less), more


def test_the_table_in_the_documentation_is_what_the_command_prints() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tuning.memory_plan", "--table"],
        capture_output=True,
        text=True,
        check=True,
        cwd=DOCS.parents[1],
    )
    assert done.stdout.strip() == table()
    assert table() in DOCS.read_text("utf-8")
    assert {"beside", "sleep", "refuse"} <= set(table().replace("|", " ").split())


def test_a_chatglm_in_its_published_layout_has_the_shape_of_its_preset(tmp_path: Path) -> None:
    """The numbers of the published config.json of ChatGLM3-6B."""
    published = {
        "model_type": "chatglm",
        "hidden_size": 4096,
        "num_layers": 28,
        "num_attention_heads": 32,
        "kv_channels": 128,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "ffn_hidden_size": 13696,
        "padded_vocab_size": 65024,
        "layernorm_epsilon": 1e-5,
        "seq_length": 8192,
        "add_qkv_bias": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(published))
    expected = shape_of("chatglm3-6b")
    found = shape_of(str(tmp_path))
    assert found == replace(expected, name=tmp_path.name, hub_id="", licence="")


def test_a_model_without_a_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is no preset and no model folder"):
        shape_of("nothing-7b")
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(InvalidInput, match="does not say 'num_attention_heads'"):
        shape_of(str(tmp_path))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Stands for a CUDA device with so many bytes free and in all."""
    PartialState()  # made for the processor, before there is a device
    memory = {"free": GIB, "all": GIB}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (memory["free"], memory["all"]))
    return memory


def test_a_run_on_a_device_says_its_plan_and_starts_where_it_fits(
    tiny_base: BaseModel, tmp_path: Path, device: dict[str, int]
) -> None:
    events: list[JobEvent] = []
    chosen = preparation.prepare(tmp_path, tiny_base.folder, Recipe(), events.append)
    assert chosen.number_format == "bf16"
    assert isinstance(events[0], NumberFormatChosen)
    (plan,) = of_type(events[1:], MemoryPlanned)
    assert plan.decision == "beside"
    assert plan.bytes["device"] == CUDA_RESERVE_BYTES


def test_a_run_that_does_not_fit_beside_the_chat_is_refused_with_the_reason(
    tiny_base: BaseModel, tmp_path: Path, device: dict[str, int]
) -> None:
    device["free"] = GIB // 4
    with pytest.raises(ModelUnavailable, match=r"0\.8 GiB.*the chat has to stop while it trains"):
        preparation.prepare(tmp_path, tiny_base.folder, Recipe(), lambda event: None)


@pytest.mark.slow
@pytest.mark.skipif("BURNISH_MODEL_CACHE" not in os.environ, reason="needs a model cache")
def test_the_plan_is_near_the_peak_of_a_real_run() -> None:
    from benchmarks.memory_plan import WITHIN, measure

    cache = Path(os.environ["BURNISH_MODEL_CACHE"]).expanduser()
    found = measure("embedded", cache, "sft", "dense", "fp32", 512)
    assert abs(found["ratio"] - 1) <= WITHIN, found
