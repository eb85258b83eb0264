"""A release that is verified before it is exported.

The engine's own checks decide, but for adapters that no engine serves (DoRA, which is marked
`export_only`): of these the files, the base model and the tensors' format are checked. Knows no
format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.adapters.base_names import known_preset
from engine.adapters.bundle import is_model, open_bundle, open_model
from engine.adapters.files import WEIGHTS, read_adapter_config
from engine.errors import InvalidBundle
from engine.models.catalogue import BaseModel
from engine.models.presets import Preset
from engine.storage import folder_of, read_manifest, short_id, verify

ReleaseKind = Literal["LoRA", "DoRA", "virtual tokens", "whole model", "base model"]


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A release whose files are whole and belong to the base model.

    `folder` holds an adapter in peft's format or, where `is_whole`, a Hugging Face model.
    """

    base: BaseModel
    digest: str | None  # None: the base model itself
    folder: Path
    kind: ReleaseKind
    manifest: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)  # adapter_config.json

    @property
    def is_whole(self) -> bool:
        """Return whether the folder holds all weights of a model."""
        return self.kind in ("whole model", "base model")

    @property
    def title(self) -> str:
        """The name that people read: the beginning of its id, or the base model's name."""
        return "the base model" if self.digest is None else short_id(self.digest)

    @property
    def preset(self) -> Preset | None:
        """The published checkpoint that the base model is, if its name is known."""
        return known_preset(self.base)

    @property
    def base_name(self) -> str:
        """The base model's published name, or the one it was given here."""
        known = self.preset
        return known.hub_id if known else Path(self.base.name).name.removesuffix(".gguf")


def open_release(base: BaseModel, bundles: Path, digest: str | None) -> VerifiedRelease:
    """Open a release and verify it for the base model.

    Raises `InvalidBundle` with every problem, `UnknownId` for a digest that names nothing.
    """
    if digest is None:
        return VerifiedRelease(base, None, base.folder, "base model")
    folder = folder_of(bundles, digest)
    problems = verify(bundles, digest)
    if problems:
        raise InvalidBundle(problems)
    manifest = read_manifest(folder)
    if is_model(manifest):
        open_model(bundles, digest)
        return VerifiedRelease(base, digest, folder, "whole model", manifest)
    if manifest.get("export_only") is None:
        folder = open_bundle(bundles, digest, base).folder
    config = read_adapter_config(folder)
    if manifest.get("export_only") is not None:
        _check_unserved(base, manifest, config)
    return VerifiedRelease(base, digest, folder, _kind(config), manifest, config)


def _kind(config: Mapping[str, Any]) -> ReleaseKind:
    if config.get("peft_type") != "LORA":
        return "virtual tokens"
    return "DoRA" if config.get("use_dora") else "LoRA"


def _check_unserved(
    base: BaseModel, manifest: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    problems = []
    if config.get("peft_type") != "LORA":
        problems.append("only LoRA and DoRA can be merged; virtual tokens are no weights")
    if manifest.get("base_digest") != base.digest:
        problems.append("base_digest: trained for another base model")
    if WEIGHTS not in manifest["files"]:  # peft would look for pickled ones then
        problems.append(f"it has no {WEIGHTS}")
    if problems:
        raise InvalidBundle(problems)
