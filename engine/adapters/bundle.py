"""Bundles: PEFT adapters with a manifest, content-addressed. This module defines the format.

A bad bundle is refused before a weight reaches an engine, and the error lists every reason.
Nothing is ever unpickled: weights are safetensors or they are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from engine.adapters import lora
from engine.adapters.files import CONFIG, WEIGHTS, read_adapter_config
from engine.adapters.kinds import kind_of
from engine.errors import InvalidBundle
from engine.models.catalogue import BaseModel
from engine.storage import digest_file, folder_of, publish, read_manifest, verify
from engine.time_slices import YieldToEngine, do_not_yield

BUNDLE_FORMAT = "burnish-bundle/1"
BundleOrigin = Literal["trained", "imported"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle."""

    digest: str
    folder: Path
    manifest: Mapping[str, Any]


def publish_bundle(root: Path, write: Callable[[Path], None], manifest: Mapping[str, Any]) -> str:
    """Publish the adapter files `write` puts into a folder; returns the bundle's digest."""

    def fill(folder: Path) -> dict[str, Any]:
        write(folder)
        return {"format": BUNDLE_FORMAT, **manifest}

    return publish(root, fill)


def origin_of(manifest: Mapping[str, Any]) -> BundleOrigin:
    """The origin of a bundle's adapter: trained here, or imported from other software."""
    return "imported" if manifest.get("origin") == "imported" else "trained"


def is_model(manifest: Mapping[str, Any]) -> bool:
    """Return whether a bundle holds a whole model, of full fine-tuning, instead of an adapter."""
    return manifest.get("kind") == "model"


def open_model(root: Path, digest: str) -> Path:
    """The verified folder of a bundle that is a whole model, in Hugging Face layout.

    Raises `InvalidBundle` for one that is damaged or is an adapter.
    """
    folder = folder_of(root, digest)
    problems = verify(root, digest)
    if not problems and not is_model(read_manifest(folder)):
        problems = ["it is an adapter, no model of its own"]
    if problems:
        raise InvalidBundle(problems)
    return folder


def open_bundle(
    root: Path, digest: str, base: BaseModel, yield_to_engine: YieldToEngine = do_not_yield
) -> Bundle:
    """Open a bundle and verify it for a base model; raises `InvalidBundle` with every problem.

    Checked: the digest and each file's sha256, the format, the base model's digest, the adapter's
    configuration, the tensors' names and shapes against the base model's layers, that all values
    are finite and no norm is absurd. `yield_to_engine` is called between pieces of the work.
    """
    folder = folder_of(root, digest)
    problems = verify(root, digest, partial(digest_file, yield_to_engine=yield_to_engine))
    if not problems:
        problems = list(_content_problems(folder, base, yield_to_engine))
    if problems:
        raise InvalidBundle(problems)
    return Bundle(digest, folder, read_manifest(folder))


def _content_problems(
    folder: Path, base: BaseModel, yield_to_engine: YieldToEngine
) -> Iterator[str]:
    manifest = read_manifest(folder)
    if manifest.get("format") != BUNDLE_FORMAT:
        yield f"format is {manifest.get('format')!r}, not {BUNDLE_FORMAT!r}"
    if is_model(manifest):
        yield (
            "it is a model of its own, and an engine holds one at a time: start the server with"
            " --model and this id"
        )
        return
    if manifest.get("base_digest") != base.digest:
        yield f"base_digest: trained for another base model ({manifest.get('base_digest')})"
    extra = set(manifest.get("files", {})) - {CONFIG, WEIGHTS, "recipe.json", "README.md"}
    if extra:
        yield f"files: unexpected {', '.join(sorted(extra))}"
    try:
        config = read_adapter_config(folder)
    except InvalidBundle as error:
        yield from error.problems
        return
    kind = kind_of(config.get("peft_type")) or lora
    yield from kind.problems(folder, config, base, yield_to_engine)
