"""The export of a release: `export_release`, and the registry of formats.

A new format is a module beside this one with what `ExportFormat` lists, and a line in
`RELEASE_FORMATS`. Nothing is written before a release is verified and the format has accepted it;
the folder then appears whole, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from deploy.export import chatglm_layout, gguf_lora, gguf_model, merged, ollama, peft_folder
from deploy.export.facts import ReleaseFacts
from deploy.export.model_card import write_model_card
from deploy.export.verified import VerifiedRelease, open_release
from engine.errors import InvalidInput
from engine.models.catalogue import BaseModel
from engine.storage import new_folder

MERGED = "merged"


class ExportFormat(Protocol):
    """The module of a format."""

    QUANTIZATIONS: tuple[str, ...]  # those that it can hold, its default first; () for none

    def refusal(self, release: VerifiedRelease) -> str | None:
        """The reason why the format cannot hold the release, as a sentence; None if it can."""

    def write(self, release: VerifiedRelease, folder: Path, quantization: str) -> None:
        """Write the release into an empty folder; `quantization` is "" for a format without."""


RELEASE_FORMATS: Mapping[str, ExportFormat] = {
    "peft": peft_folder,
    MERGED: merged,
    "gguf": gguf_model,
    "gguf-lora": gguf_lora,
    "ollama": ollama,
    "chatglm": chatglm_layout,
}


def export_release(
    base: BaseModel,
    bundles: Path,
    digest: str | None,
    target: Path,
    name: str = MERGED,
    *,
    quantization: str | None = None,
    facts: ReleaseFacts | None = None,
) -> None:
    """Write a release, or with None the base model, in the format `name` into a new folder.

    `facts` are told in its README.md. Raises `InvalidBundle` for a release that is damaged or of
    another base, `InvalidInput` where the target exists or the format cannot hold the release,
    `StorageFull` on a full disk; the target does not exist then.
    """
    export_format = _find(name)
    chosen = _quantization(export_format, name, quantization)
    if target.exists():
        raise InvalidInput(f"{target} exists already")
    release = open_release(base, bundles, digest)
    if reason := export_format.refusal(release):
        raise InvalidInput(f"cannot export {release.title} as {name}: {reason}")
    with new_folder(target) as folder:
        export_format.write(release, folder, chosen)
        write_model_card(folder, release, facts or ReleaseFacts(), name, chosen)


def _find(name: str) -> ExportFormat:
    if name not in RELEASE_FORMATS:
        raise InvalidInput(
            f"no export format {name!r}; the formats are {', '.join(RELEASE_FORMATS)}"
        )
    return RELEASE_FORMATS[name]


def _quantization(export_format: ExportFormat, name: str, wanted: str | None) -> str:
    known = export_format.QUANTIZATIONS
    if wanted is None:
        return known[0] if known else ""
    if wanted not in known:
        able = f"it has {', '.join(known)}" if known else "it has none"
        raise InvalidInput(f"the format {name} has no quantization {wanted!r}: {able}")
    return wanted
