"""Full fine-tuning: every weight of the base model is trained, and the result is a model.

For those with the memory: weights, gradients and AdamW's two moments are fp32, 16 bytes a weight,
since bf16 weights would lose most small steps. Knows no data and no trainer.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from engine.errors import InvalidBundle, InvalidInput
from engine.hardware import detect
from engine.models.catalogue import BaseModel
from tuning.distributed import weights_are_split
from tuning.quantized import load_base


def load_whole(base: BaseModel, previous: Path | None) -> PreTrainedModel:
    """The base model, or the one that an earlier stage left, with all weights to be trained.

    Raises `InvalidInput` where weights are split over processes, of which none could save them.
    """
    if weights_are_split():
        raise InvalidInput(
            "adapter.kind full is trained by processes that hold whole weights: use one process,"
            " or the configuration ddp"
        )
    model = load_base(previous or base.folder, "dense", torch.float32, detect().device)
    # Some configurations say that the head is the embedding, yet it differs
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.config.tie_word_embeddings = tied
    return model


def write_model(stage: Path, base: BaseModel, folder: Path) -> None:
    """Write the model that a stage left as bf16 safetensors, with the base model's tokenizer.

    Raises `InvalidBundle` where a weight is no number.
    """
    model = AutoModelForCausalLM.from_pretrained(stage, dtype=torch.float32, use_safetensors=True)
    if not all(tensor.isfinite().all() for tensor in model.parameters()):
        raise InvalidBundle(["its weights hold NaN or infinite values"])
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base.folder).save_pretrained(folder)
