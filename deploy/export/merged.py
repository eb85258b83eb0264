"""The format `merged`: a model in Hugging Face layout, with the adapter in its weights.

A DoRA adapter can only be used this way. The engine adds adapters row by row of a batch, but DoRA
rescales whole rows of a weight; merged into the base weights it is a base model like any other.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.export.verified import VerifiedRelease
from engine.adapters.files import WEIGHTS
from engine.errors import InvalidBundle
from engine.prompts.chatglm import is_chatglm
from engine.storage import MANIFEST

if TYPE_CHECKING:
    from transformers import PreTrainedModel

QUANTIZATIONS: tuple[str, ...] = ()
TOKENIZER_FILES = re.compile(r"config\.json|tokenizer.*|.*\.model")
# A licence may have to go with the weights; published code is only copied, for those who run it
OTHER_FILES = re.compile(
    r"(LICEN[SC]E|NOTICE|USE_POLICY|MODEL_LICENSE).*|(config|model|token)\w*\.py"
)
OURS = (MANIFEST, "recipe.json")


def refusal(release: VerifiedRelease) -> str | None:
    """See `ExportFormat`."""
    if release.kind == "virtual tokens":
        return "only LoRA and DoRA can be merged, virtual tokens are no weights (use peft)"
    return None


def write(release: VerifiedRelease, folder: Path, quantization: str) -> None:
    """See `ExportFormat`. Weights are bf16 safetensors; a whole model is copied."""
    if release.is_whole:
        keep = shutil.ignore_patterns(*OURS)
        shutil.copytree(release.folder, folder, ignore=keep, dirs_exist_ok=True)
        return
    merged_model(release).save_pretrained(folder)
    _write_tokenizer(release.base.folder, folder)
    _copy(release.base.folder, folder, OTHER_FILES)


def merged_model(release: VerifiedRelease) -> PreTrainedModel:
    """The model (of transformers, or ours) with the adapter in its bf16 weights.

    A model without an adapter has the number format of its files. Raises `InvalidBundle` for an
    adapter that holds no numbers.
    """
    import torch
    from peft import PeftModel

    from tuning.models.loading import load_causal_lm

    if release.is_whole:
        return load_causal_lm(release.folder, dtype="auto")
    # Merged in fp32 and rounded once, at the end
    model = load_causal_lm(release.base.folder, dtype=torch.float32)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.config.tie_word_embeddings = tied  # some configurations say tied, yet the head differs
    merged: PreTrainedModel = PeftModel.from_pretrained(
        model, str(release.folder)
    ).merge_and_unload()
    if not all(tensor.isfinite().all() for tensor in merged.parameters()):
        raise InvalidBundle([f"{WEIGHTS} holds NaN or infinite values"])
    return merged.to(torch.bfloat16)


def _write_tokenizer(base: Path, target: Path) -> None:
    """The tokenizer as transformers writes it, or, for a family it has none for, its files.

    There the published config.json is kept as well: the published code reads no other.
    """
    if is_chatglm(base):
        _copy(base, target, TOKENIZER_FILES)
        return
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(base).save_pretrained(target)


def _copy(base: Path, target: Path, names: re.Pattern[str]) -> None:
    for file in base.iterdir():
        if names.fullmatch(file.name) and file.is_file():
            shutil.copyfile(file, target / file.name)
