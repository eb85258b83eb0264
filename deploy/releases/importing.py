"""Import an adapter that other software trained, as a release that waits for the gate."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy.releases.events import Registered
from deploy.releases.registry import Registry
from engine.adapters.bundle import open_bundle, publish_bundle
from engine.adapters.files import WEIGHTS, write_adapter_config
from engine.adapters.foreign import ForeignAdapter, read_foreign
from engine.adapters.prefix_encoder import convert_prefix_checkpoint, is_prefix_checkpoint
from engine.errors import UnknownId
from engine.models.catalogue import BaseModel

UNJUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class ImportedRelease:
    """An imported adapter."""

    bundle: str
    claimed_base: str | None  # the base model that its files name
    verdict: str  # an adapter that was imported before keeps what the gate said


def import_adapter(
    folder: Path, base: BaseModel, bundles: Path, registry: Registry, *, trust_base: bool = False
) -> ImportedRelease:
    """Publish the adapter in a PEFT folder as a bundle and record it as a release.

    The same files give the same bundle. `trust_base` takes an adapter that names another base
    model. A checkpoint of P-tuning v2 is converted. Raises `InvalidInput`, `InvalidBundle` or
    `ModelUnavailable`, and nothing is written then.
    """
    with TemporaryDirectory() as converted:
        source = _as_adapter(folder, base, Path(converted))
        return _publish(read_foreign(source, base, trust_base=trust_base), base, bundles, registry)


def _as_adapter(folder: Path, base: BaseModel, converted: Path) -> Path:
    """The folder itself, or that of its prefix as a PEFT adapter."""
    if not ((folder / "config.json").is_file() and is_prefix_checkpoint(folder)):
        return folder
    convert_prefix_checkpoint(folder, base.folder, converted)
    return converted


def _publish(
    adapter: ForeignAdapter, base: BaseModel, bundles: Path, registry: Registry
) -> ImportedRelease:
    def fill(target: Path) -> None:
        (target / WEIGHTS).write_bytes(adapter.weights.read_bytes())
        write_adapter_config(target, adapter.config, base.name)

    manifest: dict[str, Any] = {
        "base_digest": base.digest,
        "base_name": Path(base.name).name,
        "origin": "imported",
        "claimed_base": adapter.claimed_base,
        "snapshot": None,
        "recipe": {},
    }
    digest = publish_bundle(bundles, fill, manifest)
    open_bundle(bundles, digest, base)
    return ImportedRelease(digest, adapter.claimed_base, _record(digest, registry))


def _record(digest: str, registry: Registry) -> str:
    """Add the release, unless it is known; returns the gate's verdict on it."""
    with suppress(UnknownId):
        return str(registry.get(digest).report["verdict"])
    reason = "it was trained elsewhere and has not been compared with the live release"
    registry.register(Registered(bundle=digest, origin="imported"))
    registry.add(digest, {"verdict": UNJUDGED, "reason": reason})
    return UNJUDGED
