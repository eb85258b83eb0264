"""The names of a base model, and whether an adapter names another one.

The same checkpoint goes by many names: a hub id, a mirror's id, a folder, a quantized copy. They
are compared by their last part without what mirrors and quantizers add. Reads no weight.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from engine.models.catalogue import EMBEDDED, BaseModel
from engine.models.presets import Preset, preset, presets

# What is added to a checkpoint's name by Unsloth's and other quantized copies, GGUF files and
# conversions to the layout of transformers
SUFFIXES = re.compile(
    r"(-unsloth)?(-bnb)?-[48]bit|-unsloth|-gptq(-int[48])?|-awq|-gguf|-hf|-(fp|bf)16|-int[48]"
    r"|[.-](i?q\d_\w+|f16|bf16|fp16)"
)
HUB_CACHE = re.compile(r"models--[\w.-]+--(?P<name>[\w.-]+)/snapshots/")


def other_base(claimed: object, base: BaseModel) -> Iterator[str]:
    """The problem where an adapter names another base model; none where it names none."""
    if claimed is None:
        return
    known = {name: _plain(name) for name in _names_of(base)}
    if _plain(str(claimed)) not in known.values():
        yield (
            f"base_model_name_or_path is {str(claimed)[:200]!r}, while this is"
            f" {', '.join(sorted(known))}; if both are one model under two names, import it with"
            " --trust-base"
        )


def known_preset(base: BaseModel) -> Preset | None:
    """The published checkpoint that a base model is, by its names; None if none of them is known.

    It says nothing of the weights: a quantized or changed copy may go by the same name.
    """
    plain = {_plain(name) for name in _names_of(base)}
    return next((known for known in presets().values() if _plain(known.hub_id) in plain), None)


def _names_of(base: BaseModel) -> set[str]:
    """The names by which a base model is known here."""
    names = {Path(base.name).name, _configured_name(base.folder)}
    if base.name != EMBEDDED and base.gguf is None:
        names.add(base.folder.name)
    if base.gguf is not None:
        names.add(base.gguf.stem)
    known = preset(base.name) or preset(str(_configured_name(base.folder)))
    if known is not None:
        names |= {known.name, known.hub_id.rpartition("/")[2]}
    return {name for name in names if name}


def _configured_name(folder: Path) -> str:
    """`_name_or_path` in a checkpoint's configuration, "" where it has none."""
    try:
        name = json.loads((folder / "config.json").read_text("utf-8")).get("_name_or_path")
    except (OSError, ValueError, AttributeError):
        return ""
    return Path(name).name if isinstance(name, str) else ""


def _plain(name: str) -> str:
    """The last part of a name in lower case, without the maker's prefix and added suffixes."""
    cached = HUB_CACHE.search(name)
    last = cached["name"] if cached else name.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    plain = last.lower().removesuffix(".gguf").removeprefix("meta-")
    while (shorter := re.sub(f"({SUFFIXES.pattern})$", "", plain)) != plain:
        plain = shorter
    return plain
