"""Virtual tokens instead of changed weights: prefix tuning, prompt tuning and P-tuning.

Supports: SFT, DPO and KTO by trl's own trainers (a pack holds no virtual tokens), on a dense base.
Assumes: a base that takes input embeddings and a cache, as transformers' decoders do.
Raises: whatever peft raises. What cannot be trained this way is refused with the recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import PeftModelForCausalLM, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig
from peft.config import PromptLearningConfig
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from tuning.methods.base import SoftPromptKind

ENCODER = "prompt_encoder.safetensors"  # beside peft's own files, in checkpoints only


def soft_prompt_config(kind: SoftPromptKind, virtual_tokens: int) -> PromptLearningConfig:
    """peft's configuration of a soft prompt.

    A prefix is made by a two-layer network while it is trained, which steadies it (Li & Liang
    2021, 4.3). A prompt begins as embeddings of words drawn from the vocabulary, not at random
    (Lester et al. 2021, 3.2). P-tuning's embeddings are made by a small network (Liu et al. 2021,
    3.2), peft's without the recurrent layer. Networks are dropped when an adapter is saved.
    """
    configs: dict[SoftPromptKind, Callable[..., PromptLearningConfig]] = {
        "prefix": lambda **common: PrefixTuningConfig(prefix_projection=True, **common),
        "prompt": lambda **common: PromptTuningConfig(prompt_tuning_init="SAMPLE_VOCAB", **common),
        "p-tuning": PromptEncoderConfig,
    }
    return configs[kind](task_type="CAUSAL_LM", num_virtual_tokens=virtual_tokens)


class SoftPromptModel(PeftModelForCausalLM):  # type: ignore[misc]  # peft is untyped here
    """peft's model, whose training can go on from what it has saved.

    peft saves what an encoder gives and refuses to train that further. The encoder itself is
    saved beside it, and read when a trainer resumes or the next stage begins.
    """

    def save_pretrained(self, save_directory: str, *args: Any, **kwargs: Any) -> None:
        """Save as peft does, and the encoder of each adapter as well."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if not kwargs.get("is_main_process", True):
            return
        for name in kwargs.get("selected_adapters") or list(self.peft_config):
            folder = Path(save_directory) / ("" if name == "default" else name)
            save_file(self.prompt_encoder[name].state_dict(), folder / ENCODER)

    def load_adapter(self, model_id: str, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """The encoder that `save_pretrained` left in a folder, into an adapter that is here."""
        saved = load_file(Path(model_id) / ENCODER)
        self.prompt_encoder[adapter_name].load_state_dict(saved)

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Not for a prefix: it enters by the cache, which checkpointing would throw away."""
        if not isinstance(self.active_peft_config, PrefixTuningConfig):
            self.base_model.activation_checkpointing_enable(*args, **kwargs)


def soft_prompt_model(
    base: PreTrainedModel, kind: SoftPromptKind, virtual_tokens: int, previous: Path | None
) -> SoftPromptModel:
    """A base model with a fresh adapter, or with the one that the previous stage left."""
    model = SoftPromptModel(base, soft_prompt_config(kind, virtual_tokens))
    if previous is not None:
        model.load_adapter(str(previous), "default")
    return model
