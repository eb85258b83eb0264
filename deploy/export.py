"""Export a bundle for other software: the base model with the adapter merged in.

A DoRA adapter can only be used this way. The engine adds adapters row by row of a batch, but DoRA
rescales whole rows of a weight; merged into the base weights it is a base model like any other.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from engine.adapters.bundle import is_model, open_bundle, open_model
from engine.adapters.files import CONFIG, WEIGHTS
from engine.errors import InvalidBundle, InvalidInput
from engine.models.catalogue import BaseModel
from engine.prompts.chatglm import is_chatglm
from engine.storage import MANIFEST, folder_of, read_manifest, verify

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENIZER_FILES = re.compile(r"config\.json|tokenizer.*|.*\.model")


def export_merged(base: BaseModel, bundles: Path, digest: str, target: Path) -> None:
    """Write merged bf16 safetensors and the tokenizer into the folder `target`, all or nothing.

    A bundle that is a whole model is copied.

    Raises `InvalidInput` where the target exists, `InvalidBundle` where the bundle is not whole,
    not of this base, or holds no numbers.
    """
    if target.exists():
        raise InvalidInput(f"{target} exists already")
    unfinished = target.with_name(f"{target.name}.unfinished")
    if is_model(read_manifest(folder_of(bundles, digest))):
        keep = shutil.ignore_patterns(MANIFEST, "recipe.json")
        shutil.copytree(open_model(bundles, digest), unfinished, ignore=keep)
        unfinished.rename(target)
        return
    merged = _merged(base, _verified(base, bundles, digest))
    merged.save_pretrained(unfinished)
    _write_tokenizer(base.folder, unfinished)
    unfinished.rename(target)


def _write_tokenizer(base: Path, target: Path) -> None:
    """The tokenizer as transformers writes it, or, for a family it has none for, its files.

    There the published config.json is kept as well: the published code reads no other.
    """
    if not is_chatglm(base):
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(base).save_pretrained(target)
        return
    for file in base.iterdir():
        if TOKENIZER_FILES.fullmatch(file.name):
            shutil.copyfile(file, target / file.name)


def _verified(base: BaseModel, bundles: Path, digest: str) -> Path:
    """Return the verified folder of a bundle; `open_bundle` refuses those for export only."""
    folder = folder_of(bundles, digest)
    problems = verify(bundles, digest)
    if problems:
        raise InvalidBundle(problems)
    manifest = read_manifest(folder)
    if json.loads((folder / CONFIG).read_text("utf-8")).get("peft_type") != "LORA":
        raise InvalidBundle(["only LoRA and DoRA can be merged; virtual tokens are no weights"])
    if manifest.get("export_only") is None:
        return open_bundle(bundles, digest, base).folder
    if manifest.get("base_digest") != base.digest:
        problems.append("base_digest: trained for another base model")
    if WEIGHTS not in manifest["files"]:  # peft would look for pickled ones then
        problems.append(f"it has no {WEIGHTS}")
    if problems:
        raise InvalidBundle(problems)
    return folder


def _merged(base: BaseModel, adapter: Path) -> PreTrainedModel:
    import torch
    from peft import PeftModel

    from tuning.models.loading import load_causal_lm

    # Merged in fp32 and rounded once, at the end
    model = load_causal_lm(base.folder, dtype=torch.float32)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.config.tie_word_embeddings = tied  # some configurations say tied, yet the head differs
    merged: PreTrainedModel = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    if not all(tensor.isfinite().all() for tensor in merged.parameters()):
        raise InvalidBundle([f"{WEIGHTS} holds NaN or infinite values"])
    return merged.to(torch.bfloat16)
