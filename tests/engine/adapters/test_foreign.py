"""Adapters that other software trained: what is served equals peft, and the rest is refused.

Each adapter is made by peft itself, as LLaMA-Factory, Unsloth and Alpaca-LoRA have it do.
"""

from __future__ import annotations

import copy
import json
import pickle
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig

from engine.adapters.foreign import read_foreign
from engine.adapters.lora_matrices import LoraMatrices
from engine.errors import InvalidBundle, InvalidInput
from engine.kernels.portable import PortableKernels
from engine.models.catalogue import BaseModel
from engine.models.kernel_selection import KernelChoice
from tests.support.decoders import SIZES, Runner, random_ids, write_random

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
IDS = random_ids(45, seed=1)
Made = tuple[BaseModel, nn.Module]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A small LLaMA as a base model, and as transformers holds it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama-instruct"
    model = write_random(folder, LlamaConfig(**SIZES | {"num_hidden_layers": 3}))
    return BaseModel("owner/Tiny-Llama-Instruct", folder, "sha256:" + "0" * 64), model


@pytest.fixture(scope="module")
def runner(made: Made) -> Runner:
    # Texts of all tests stay in its cache
    return Runner.of(made[0].folder, KernelChoice(PortableKernels(), "asked for"), pages=200)


def train(model: nn.Module, folder: Path, **settings: Any) -> PeftModel:
    """An adapter of random matrices, saved by peft with the name of the base model in it."""
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]} | settings
    config = LoraConfig(**{"task_type": "CAUSAL_LM"} | given)
    adapted = get_peft_model(copy.deepcopy(model), config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(folder)
    rewrite(folder, base_model_name_or_path="owner/Tiny-Llama-Instruct")
    return adapted


def rewrite(folder: Path, **fields: Any) -> None:
    """Replace fields of an adapter's configuration."""
    file = folder / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@torch.inference_mode()
def logits(model: nn.Module) -> Tensor:
    found: Tensor = model(torch.tensor([IDS])).logits[0]
    return found


def served(folder: Path, base: BaseModel, runner: Runner, bundle: Path) -> Tensor:
    """Logits of the engine with the adapter as a bundle would hold it."""
    adapter = read_foreign(folder, base)
    bundle.mkdir()
    (bundle / WEIGHTS).write_bytes(adapter.weights.read_bytes())
    (bundle / CONFIG).write_text(json.dumps(adapter.config))
    layout = runner.architecture.layout
    return runner.logits(IDS, LoraMatrices(bundle, layout, device="cpu", native=False))


VARIANTS: dict[str, dict[str, Any]] = {
    "Alpaca-LoRA": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05},
    "all linear layers": {"target_modules": "all-linear"},
    "rsLoRA": {"use_rslora": True, "r": 16},
    "rank_pattern": {"rank_pattern": {"q_proj": 2, r"layers\.1\.self_attn\.v_proj": 6}},
    "alpha_pattern": {"alpha_pattern": {"q_proj": 3, r".*1\.self_attn\.v_proj": 20}},
    "both patterns, rsLoRA": {
        "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"v_proj": 5},
        "use_rslora": True,
    },
    "a regular expression": {"target_modules": r".*\.(0|2)\.(self_attn\.q_proj|mlp\.up_proj)"},
    "excluded names": {
        "target_modules": ["q_proj", "up_proj"],
        "exclude_modules": ["1.mlp.up_proj"],
    },
    "an excluded expression": {"exclude_modules": r".*layers\.0\..*"},
    "layers by index": {"layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "one layer": {"layers_to_transform": 1},
    "no task": {"task_type": None},  # then peft names the model's class in auto_mapping
    "a gaussian start": {"init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_is_served_as_peft_computes_it(
    made: Made, runner: Runner, tmp_path: Path, settings: dict[str, Any]
) -> None:
    base, model = made
    adapted = train(model, tmp_path / "theirs", **settings)
    found = served(tmp_path / "theirs", base, runner, tmp_path / "bundle")
    expected = logits(adapted)
    assert (expected - logits(model)).abs().max() > 0.02  # it really changes something
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    # peft reads what a bundle holds, and computes the same: export and training rely on it
    again = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "bundle").eval()
    torch.testing.assert_close(logits(again), expected, rtol=0, atol=1e-5)


def test_a_bundle_holds_no_expression_and_nothing_of_its_maker(made: Made, tmp_path: Path) -> None:
    base, model = made
    train(model, tmp_path, target_modules=r".*\.0\.self_attn\.[qk]_proj", rank_pattern={"k_.*": 2})
    rewrite(tmp_path, base_model_name_or_path="/home/ann/secret/tiny-llama-instruct")
    assert read_foreign(tmp_path, base).config == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "Tiny-Llama-Instruct",
        "inference_mode": True,
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "use_rslora": False,
        "target_modules": ["model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.q_proj"],
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"model.layers.0.self_attn.k_proj": 2},
    }


def test_fields_of_old_and_other_software_are_no_obstacle(made: Made, tmp_path: Path) -> None:
    """Alpaca-LoRA's peft wrote `enable_lora` and `merge_weights`, Unsloth writes its class."""
    base, model = made
    train(model, tmp_path)
    mapping = {"base_model_class": "LlamaForCausalLM", "unsloth_fixed": True}
    rewrite(tmp_path, enable_lora=None, merge_weights=False, auto_mapping=mapping)
    assert read_foreign(tmp_path, base).config["target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    "name",
    [
        None,
        "tiny-llama-instruct",
        "unsloth/tiny-llama-instruct-unsloth-bnb-4bit",
        "mirror/Tiny-Llama-Instruct-GPTQ-Int4",
        r"C:\models\Tiny-Llama-Instruct",
        "/root/.cache/huggingface/hub/models--owner--Tiny-Llama-Instruct/snapshots/0a1b/",
    ],
)
def test_the_base_models_other_names_are_known(
    made: Made, tmp_path: Path, name: str | None
) -> None:
    base, model = made
    train(model, tmp_path)
    rewrite(tmp_path, base_model_name_or_path=name)
    assert read_foreign(tmp_path, base).claimed_base == name


def refusal(folder: Path, base: BaseModel) -> str:
    with pytest.raises(InvalidBundle) as raised:
        read_foreign(folder, base)
    (problem,) = raised.value.problems
    return problem


def test_an_adapter_of_another_base_is_refused_unless_the_name_is_known_to_be_wrong(
    made: Made, tmp_path: Path
) -> None:
    base, model = made
    train(model, tmp_path)
    rewrite(tmp_path, base_model_name_or_path="owner/Tiny-Llama-Base")
    problem = refusal(tmp_path, base)
    assert "base_model_name_or_path is 'owner/Tiny-Llama-Base'" in problem
    assert "--trust-base" in problem
    assert read_foreign(tmp_path, base, trust_base=True).claimed_base == "owner/Tiny-Llama-Base"


def test_matrices_of_a_larger_model_are_refused(made: Made, tmp_path: Path) -> None:
    wider = write_random(tmp_path / "wide", LlamaConfig(**SIZES | {"hidden_size": 96}))
    train(wider, tmp_path / "theirs")
    problem = refusal(tmp_path / "theirs", made[0])
    assert problem.startswith("target_modules and") or "do not fit the layers of Tiny" in problem


def test_another_number_of_layers_is_refused(made: Made, tmp_path: Path) -> None:
    deeper = write_random(tmp_path / "deep", LlamaConfig(**SIZES | {"num_hidden_layers": 5}))
    train(deeper, tmp_path / "theirs")
    problem = refusal(tmp_path / "theirs", made[0])
    assert problem.startswith("8 of 20 tensors belong to no layer of Tiny-Llama-Instruct")


def test_another_familys_names_are_refused(made: Made, tmp_path: Path) -> None:
    train(made[1], tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    renamed = {
        key.replace("model.layers", "transformer.h").replace("self_attn.q_proj", "attn.c_attn"): t
        for key, t in tensors.items()
    }
    save_file(renamed, tmp_path / WEIGHTS)
    assert "it was trained on a model of another kind" in refusal(tmp_path, made[0])


def change(settings: dict[str, Any]) -> Callable[[nn.Module, Path], object]:
    return lambda model, folder: train(model, folder, **settings)


def rewritten(**fields: Any) -> Callable[[nn.Module, Path], object]:
    def write(model: nn.Module, folder: Path) -> None:
        train(model, folder)
        rewrite(folder, **fields)

    return write


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (change({"modules_to_save": ["lm_head"]}), "modules_to_save"),
        (change({"bias": "all"}), "bias is 'all'"),
        (change({"use_dora": True}), "use_dora"),
        (change({"target_modules": ["q_proj", "embed_tokens"]}), "trained embeddings"),
        (change({"target_modules": ["q_proj", "lm_head"]}), "trained embeddings or an output head"),
        (change({"lora_bias": True}), "lora_bias is not supported"),
        (change({"trainable_token_indices": [1, 2]}), "trainable_token_indices"),
        (change({"init_lora_weights": "olora"}), "init_lora_weights is 'olora'"),
        (rewritten(r=8), "do not fit the layers of Tiny-Llama-Instruct"),
        (rewritten(target_modules=["q_proj"]), "disagree about 3 modules"),
        (rewritten(target_modules="("), "peft cannot read its configuration"),
        (rewritten(target_modules=None), "target_modules is missing"),
        (rewritten(alpha_pattern={"q_proj": "big"}), "a rank or an alpha is 'big'"),
        (rewritten(lora_alpha=1e6), "lora_alpha is"),
        (rewritten(task_type="SEQ_CLS"), "task_type is 'SEQ_CLS'"),
        (rewritten(peft_type="IA3"), "peft_type is 'IA3'"),
        (rewritten(a_field_of_tomorrow=7), "a_field_of_tomorrow is not supported"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_served_is_refused_by_its_name(
    made: Made, tmp_path: Path, write: Callable[[nn.Module, Path], object], named: str
) -> None:
    base, model = made
    write(model, tmp_path)
    assert named in refusal(tmp_path, base)


def test_a_pickled_adapter_is_refused_with_the_command_that_converts_it(
    made: Made, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, model = made
    folder = tmp_path / "it's theirs"
    adapted = train(model, folder)
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / "adapter_model.bin")
    problem = refusal(folder, base)
    assert problem.startswith("adapter_model.bin is pickled")
    command = shlex.split(problem.partition("convert it with: ")[2])
    assert command[:5] == ["cd", str(folder), "&&", "python", "-c"]
    monkeypatch.chdir(folder)
    exec(command[5], {})
    found = served(folder, base, runner, tmp_path / "bundle")
    torch.testing.assert_close(found, logits(adapted), rtol=0, atol=1e-4)


def test_nothing_is_unpickled_under_the_right_name_either(made: Made, tmp_path: Path) -> None:
    base, model = made
    train(model, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(pickle.dumps({"a": 1}))
    assert "cannot be read" in refusal(tmp_path, base)


def test_a_folder_without_an_adapter_says_what_is_missing(made: Made, tmp_path: Path) -> None:
    base, model = made
    with pytest.raises(InvalidInput, match=r"holds no adapter_config\.json: give the folder"):
        read_foreign(tmp_path, base)
    train(model, tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(InvalidInput, match=r"holds no adapter_model\.safetensors"):
        read_foreign(tmp_path, base)
