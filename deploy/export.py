"""A release as something other software serves: the base model with the adapter merged in."""

from __future__ import annotations

from pathlib import Path

from engine.adapters.bundle import open_bundle
from engine.errors import InvalidInput
from engine.models.catalogue import BaseModel


def export_merged(base: BaseModel, bundles: Path, digest: str, target: Path) -> None:
    """Write a Hugging Face folder with merged bf16 weights; the target must not exist."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if target.exists():
        raise InvalidInput(f"{target} exists already")
    bundle = open_bundle(bundles, digest, base)
    # Merged in fp32 and rounded once, at the end
    model = AutoModelForCausalLM.from_pretrained(
        base.folder, dtype=torch.float32, use_safetensors=True
    )
    merged = PeftModel.from_pretrained(model, str(bundle.folder)).merge_and_unload()
    merged.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(base.folder).save_pretrained(target)
