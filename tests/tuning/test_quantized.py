"""An adapter on weights of few bits trains as it would on dense weights with the same numbers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from engine.adapters.files import WEIGHTS
from engine.errors import InvalidInput
from engine.models.catalogue import BaseModel, linear_shapes
from tuning.batch.forward import accept_layouts, layout_tensors
from tuning.batch.plan import Completion, TrainingPrompt, lay_out
from tuning.kernels import PORTABLE
from tuning.policy import load_policy, save_adapter
from tuning.quantized import ROUND, QuantizedLinear, held_weight_bytes, load_base, quantize_layers
from tuning.recipe import recipe_from_dict
from tuning.recipe_sections import AdapterRecipe
from tuning.weight_formats import Weights

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = torch.tensor([[5, 9, 17, 33, 60, 61, 7, 8, 90, 21]])


def with_adapter(base: nn.Module) -> PeftModel:
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=LINEARS, task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def dense_of(model: nn.Module) -> nn.Module:
    """The same model with its quantized weights written out."""
    dense = copy.deepcopy(model)
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            plain = nn.Linear(module.in_features, module.out_features, bias=False)
            plain.weight = nn.Parameter(module.dense(torch.float32), requires_grad=False)
            parent, _, child = name.rpartition(".")
            setattr(dense.get_submodule(parent), child, plain)
    return dense


def loss_and_gradients(
    model: PeftModel, *, packed: bool = False
) -> tuple[float, dict[str, Tensor]]:
    """The mean over all tokens but the first; of a model that takes layouts, as a pack."""
    if packed:
        (ids,) = IDS.tolist()
        layout = layout_tensors(
            lay_out([TrainingPrompt((), (Completion(tuple(ids), (True,) * len(ids)),))])
        )
        loss = -model(layout=layout, labels=IDS, fused_lm_head=True).log_probs.mean()
    else:
        loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    gradients = {n: p.grad.float() for n, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients


def assert_same(ours: PeftModel, theirs: PeftModel, within: float, *, packed: bool = True) -> None:
    loss, gradients = loss_and_gradients(ours, packed=packed)
    expected_loss, expected = loss_and_gradients(theirs)
    assert loss == pytest.approx(expected_loss, rel=within)
    assert gradients.keys() == expected.keys()
    assert len(expected) == 2 * 7 * 2  # a and b, 7 linear layers, 2 layers
    for name, gradient in expected.items():
        assert float((gradients[name] - gradient).norm()) <= within * float(gradient.norm()), name


@pytest.mark.parametrize("packed", [False, True], ids=["peft", "packed"])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_loss_and_gradients_are_those_of_the_dense_model_with_the_same_weights(
    tiny_base: BaseModel, weights: Weights, packed: bool
) -> None:
    base = load_base(tiny_base.folder, weights, torch.float32, "cpu")
    expected = with_adapter(dense_of(base))
    ours = with_adapter(base)
    if packed:
        accept_layouts(ours, PORTABLE)
    assert_same(ours, expected, 1e-4, packed=packed)


def test_the_codes_mean_nearly_the_weights_they_were_made_from(tiny_base: BaseModel) -> None:
    """A code of b bits is at most half a step off: the range of a group / (2^b - 1) / 2."""
    plain = AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float32)
    name = "model.layers.0.mlp.down_proj"
    weight = plain.get_submodule(name).weight.view(32, 2, 32)
    spans: dict[Weights, Tensor] = {
        "int8": 2 * weight.abs().amax(-1, keepdim=True) / 254,
        # the best of ranges narrowed to 0.8 is taken: what it cuts off may be a tenth on each side
        "int4": (weight.amax(-1, keepdim=True) - weight.amin(-1, keepdim=True)) / 15 * 2,
    }
    for weights, step in spans.items():
        held = load_base(tiny_base.folder, weights, torch.float32, "cpu")
        layer = held.get_submodule(name)
        assert isinstance(layer, QuantizedLinear)
        apart = (layer.dense(torch.float32).view(32, 2, 32) - weight).abs()
        assert bool((apart <= step).all())
        assert float(apart.max()) > 0


@pytest.mark.parametrize(("weights", "bits"), [("int8", 8.5), ("int4", 5.0)])
def test_the_layers_take_the_bits_they_are_said_to(
    tiny_base: BaseModel, weights: Weights, bits: float
) -> None:
    """Codes, and for each 32 a scale of 16 bits, and for 4 bits a minimum of 16 as well."""
    shapes = linear_shapes(tiny_base.folder)
    held = load_base(tiny_base.folder, weights, torch.float32, "cpu")
    layers = [m for m in held.modules() if isinstance(m, QuantizedLinear)]
    assert len(layers) == len(shapes) == 14
    numbers = sum(rows * columns for rows, columns in shapes.values())
    assert sum(held_weight_bytes(layer) for layer in layers) == numbers * bits / 8
    dense = load_base(tiny_base.folder, "dense", torch.float32, "cpu")
    assert held_weight_bytes(dense) - held_weight_bytes(held) == numbers * (32 - bits) / 8


def test_inputs_that_do_not_fill_a_group_and_biases_are_held_too() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(40, 3)
    expected = linear.weight.detach().clone(), linear.bias.detach().clone()
    for round_to, step in (("int8", 0.005), ("int4", 0.05)):
        held = nn.Sequential(copy.deepcopy(linear))
        quantize_layers(held, ["0"], ROUND[round_to])
        layer = held[0]
        assert isinstance(layer, QuantizedLinear)
        assert torch.allclose(layer.dense(torch.float32), expected[0], atol=step)
        x = torch.randn(2, 5, 40)
        by_hand = x @ layer.dense(torch.float32).t() + expected[1]
        assert torch.allclose(held(x), by_hand, atol=1e-6)


def test_no_dense_weight_is_kept_between_forward_and_backward(tiny_base: BaseModel) -> None:
    """A matrix of a frozen linear layer has more numbers than anything else autograd would keep."""
    model = with_adapter(load_base(tiny_base.folder, "int4", torch.float32, "cpu"))
    shapes = set(linear_shapes(tiny_base.folder).values())
    kept: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        if not tensor.requires_grad or tensor.grad_fn is not None:
            kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=IDS, labels=IDS)
    assert kept
    assert not [s for s in kept if s in shapes or s[::-1] in shapes]


def test_bf16_weights_under_an_fp32_adapter_train_as_well_as_by_peft(tiny_base: BaseModel) -> None:
    """Neither is the truth: that is the same model in fp32, and both are as far from it."""
    rounded = load_base(tiny_base.folder, "dense", torch.bfloat16, "cpu")
    _, truth = loss_and_gradients(with_adapter(copy.deepcopy(rounded).float()))
    _, of_peft = loss_and_gradients(with_adapter(copy.deepcopy(rounded)))
    ours = with_adapter(rounded)
    accept_layouts(ours, PORTABLE)
    _, of_ours = loss_and_gradients(ours, packed=True)
    trained = [p for p in ours.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    errors = [
        sum(float((found[name] - true).norm() / true.norm()) for name, true in truth.items())
        for found in (of_ours, of_peft)
    ]
    assert 0 < errors[0] <= 1.2 * errors[1]
    assert errors[1] / len(truth) < 0.1


def test_nf4_on_a_processor_lets_gradients_through(tiny_base: BaseModel) -> None:
    pytest.importorskip("bitsandbytes")
    base: Any = load_base(tiny_base.folder, "nf4", torch.float32, "cpu")
    assert type(base.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    expected, ours = with_adapter(copy.deepcopy(base)), with_adapter(base)
    accept_layouts(ours, PORTABLE)
    assert_same(ours, expected, 1e-4)


def test_dora_over_weights_of_few_bits_is_refused() -> None:
    """Its magnitudes are norms of dense weights (Liu et al. 2024, eq. 5)."""
    with pytest.raises(InvalidInput, match=r"adapter\.weight_decomposed needs weights: dense"):
        recipe_from_dict({"weights": "int4", "adapter": {"weight_decomposed": True}})
    assert recipe_from_dict({"weights": "int4"}).weights == "int4"


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_an_adapter_over_weights_of_few_bits_is_saved_and_goes_on(
    tiny_base: BaseModel, tmp_path: Path, weights: Weights
) -> None:
    """As from one stage of a job to the next."""
    recipe = AdapterRecipe(rank=4, alpha=8)
    first = load_policy(tiny_base, recipe, None, weights=weights)
    with torch.no_grad():
        for name, parameter in first.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    save_adapter(first, tmp_path / "adapter", None)
    assert set(load_file(tmp_path / "adapter" / WEIGHTS)) == {
        f"base_model.model.{name}.lora_{side}.weight"
        for name in linear_shapes(tiny_base.folder)
        for side in "AB"
    }
    second = load_policy(tiny_base, recipe, tmp_path / "adapter", weights=weights)
    assert [p.requires_grad for n, p in second.named_parameters() if "lora_" in n] == [True] * 28
    assert torch.equal(first(input_ids=IDS).logits, second(input_ids=IDS).logits)
