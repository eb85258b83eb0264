"""The model that is trained: the base weights with one adapter. Knows no data and no trainer."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from engine.adapters.files import CONFIG, WEIGHTS
from engine.hardware import detect
from engine.models.catalogue import BaseModel, linear_shapes
from tuning.distributed import weights_are_split
from tuning.quantized import load_base
from tuning.recipe_sections import AdapterRecipe
from tuning.soft_prompt import soft_prompt_model
from tuning.weight_formats import Weights
from tuning.whole_model import load_whole


def load_policy(
    base: BaseModel,
    recipe: AdapterRecipe,
    adapter: Path | None,
    *,
    weights: Weights = "dense",
    dtype: torch.dtype = torch.float32,
) -> PeftModel | PreTrainedModel:
    """The base model with a fresh adapter, or with the one that an earlier stage left.

    Of kind `full` it is the base model itself, or what an earlier stage made of it.
    """
    if recipe.kind == "full":
        return load_whole(base, adapter)
    model = load_base(base.folder, weights, dtype, detect().device)
    if recipe.kind != "lora":
        return soft_prompt_model(model, recipe.kind, recipe.virtual_tokens, adapter)
    if adapter is not None:
        return PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    return get_peft_model(model, _lora(base, recipe))


def save_adapter(model: PeftModel | PreTrainedModel, folder: Path, checkpoint: str | None) -> None:
    """Write the adapter, or a model without one, to a new folder.

    Where weights are split over processes no process has a whole one: the trainer gathered them for
    its checkpoint after the last step, and that is copied. Untested, for want of GPUs.
    """
    if not isinstance(model, PeftModel):
        model.save_pretrained(folder)
        return
    if not weights_are_split():
        model.save_pretrained(str(folder), selected_adapters=["default"])
        return
    assert checkpoint is not None, "the trainer saves after its last step"
    folder.mkdir()
    for name in (WEIGHTS, CONFIG):
        (folder / name).write_bytes((Path(checkpoint) / name).read_bytes())


def _lora(base: BaseModel, recipe: AdapterRecipe) -> LoraConfig:
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_rslora=recipe.rank_stabilised,
        use_dora=recipe.weight_decomposed,
        target_modules=sorted({name.rsplit(".", 1)[-1] for name in linear_shapes(base.folder)}),
        task_type="CAUSAL_LM",
    )
