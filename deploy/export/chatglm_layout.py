"""The format `chatglm`: a model of the ChatGLM family in its published layout.

Tensors have the published names, config.json and the tokenizer's files are the published ones.
The adapter lies beside the merged weights, in the folder `adapter`, on the same names.
"""

from __future__ import annotations

from pathlib import Path

from deploy.export import merged, peft_folder
from deploy.export.verified import VerifiedRelease
from engine.config_file import read_config
from engine.prompts.chatglm import is_chatglm

QUANTIZATIONS: tuple[str, ...] = ()
ADAPTER = "adapter"


def refusal(release: VerifiedRelease) -> str | None:
    """See `ExportFormat`."""
    if not is_chatglm(release.base.folder):
        kind = read_config(release.base.folder).get("model_type")
        return f"the base model's type is {kind!r}, which has no such layout (use merged)"
    return merged.refusal(release)


def write(release: VerifiedRelease, folder: Path, quantization: str) -> None:
    """See `ExportFormat`."""
    merged.write(release, folder, quantization)
    if not release.is_whole:
        (folder / ADAPTER).mkdir()
        peft_folder.write(release, folder / ADAPTER, quantization)
