"""A check that a base model can be trained as a recipe asks, before anything is written."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from engine.adapters import soft_prompt
from engine.config_file import read_config
from engine.errors import InvalidInput, ModelUnavailable
from tuning.methods.base import TrainedKind
from tuning.recipe import Recipe

TRAINING_LIBRARY = "trl"
SOFT_PROMPT_TYPES: dict[TrainedKind, str] = {  # as peft calls them
    "prefix": soft_prompt.PREFIX,
    "prompt": "PROMPT_TUNING",
    "p-tuning": "P_TUNING",
}


def require_trainable(folder: Path, recipe: Recipe) -> None:
    """Raise where the base model in a folder cannot be trained with a recipe.

    `ModelUnavailable` for a family without a training forward pass, or a setting of it that is not
    covered; `InvalidInput` for what the recipe asks of this family in vain, and in an installation
    that serves alone.
    """
    if importlib.util.find_spec(TRAINING_LIBRARY) is None:
        raise InvalidInput(
            f"this installation serves only: {TRAINING_LIBRARY} is not in it; tune where it is, on"
            " the same home"
        )
    from engine.models import chatglm
    from engine.models.families import architecture_of, family_of

    model_type = read_config(folder).get("model_type")
    if model_type in chatglm.MODEL_TYPES:
        architecture_of(folder)
        if recipe.reward.epochs > 0 or recipe.rloo.epochs > 0:
            raise InvalidInput(
                "reward.epochs and rloo.epochs must be 0 for a ChatGLM base model in its published "
                "layout: a reward model needs a classifier of transformers, which has none for it"
            )
        if recipe.adapter.kind == "full":
            raise InvalidInput(
                "adapter.kind full is not for a ChatGLM base model in its published layout: its "
                "weights are trained through an adapter alone; use kind lora or prefix"
            )
    elif family_of(model_type) is None and not _known_to_transformers(model_type):
        raise ModelUnavailable(
            f"cannot train a model of type {model_type!r}: no training forward pass for it is at "
            "hand; use a model of another family"
        )
    kind = SOFT_PROMPT_TYPES.get(recipe.adapter.kind)
    reason = None if kind is None else soft_prompt.unsupported_reason(folder, kind)
    if reason is not None:
        raise InvalidInput(f"adapter.kind is {recipe.adapter.kind!r}: {reason}")


def _known_to_transformers(model_type: object) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
