"""Checkpoints: tensors by name, each read on demand.

Knows files, shards and Hugging Face tensor names. Knows nothing of how a model computes, nor which
tensors one needs. Only safetensors and
GGUF are read; pickled weights never are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.config_file import read_config, read_json_object
from engine.errors import ModelUnavailable
from engine.quantization.groups import QuantizedMatrix

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Checkpoint(Protocol):
    """The interface of a checkpoint, from which a decoder is loaded."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Contents of `config.json`."""

    @property
    def names(self) -> frozenset[str]:
        """Hugging Face names of its tensors."""

    def tensor(self, name: str) -> Tensor:
        """One dense tensor, in the dtype of the file, or in float32 if the file has it quantized.

        It may be mapped from the file and must not be written to.
        Raises `ModelUnavailable` if there is none of that name or it cannot be read.
        """

    def blocks(self, name: str) -> QuantizedMatrix | None:
        """The quantized groups of a tensor, exactly as in the file; None if it has none.

        Raises `ModelUnavailable` if there is no tensor of that name.
        """


def open_checkpoint(folder: Path, gguf: Path | None = None) -> Checkpoint:
    """The checkpoint in a Hugging Face folder, or with its weights from the GGUF file `gguf`.

    `folder` holds `config.json` in both cases. Raises `ModelUnavailable` if it cannot be read.
    """
    if gguf is None:
        return FolderCheckpoint(folder)
    from engine.models.gguf import GgufCheckpoint

    return GgufCheckpoint(gguf, read_config(folder))


class FolderCheckpoint:
    """Safetensors in a Hugging Face folder, in one file or in shards.

    One shard is memory-mapped at a time, so that pages of the others do not count as the process's
    memory. The files are those that transformers would read: `model.safetensors`, else those that
    the index names, else every `*.safetensors`. All headers are read here, so that a missing,
    truncated or corrupt file is found before any weight is used. Raises `ModelUnavailable` with
    every such problem.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self.config: Mapping[str, Any] = read_config(folder)
        if not (folder / SINGLE).is_file() and (folder / INDEX).is_file():
            shard_of = _read_index(folder / INDEX)
            held = _read_headers(self._folder, sorted(set(shard_of.values())))
        else:
            held = _read_headers(self._folder, _loose_shards(folder))
            shard_of = _shard_of_each_tensor(folder, held)
        _check_promises(folder, shard_of, held)
        self._shard_of = shard_of
        self._mapped: tuple[str, Any] | None = None  # a shard's name, and the shard
        self.names = frozenset(shard_of)

    def tensor(self, name: str) -> Tensor:
        """See `Checkpoint`."""
        self._require(name)
        try:
            tensor: Tensor = self._shard(self._shard_of[name]).get_tensor(name)
        except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError) as error:
            raise ModelUnavailable(f"cannot read {name} in {self._folder}: {error}") from error
        return tensor

    def _shard(self, name: str) -> Any:
        if self._mapped is None or self._mapped[0] != name:
            self._mapped = None
            self._mapped = name, _open_shard(self._folder, name)
        return self._mapped[1]

    def blocks(self, name: str) -> QuantizedMatrix | None:
        """See `Checkpoint`; these files hold no quantized groups."""
        self._require(name)
        return None

    def _require(self, name: str) -> None:
        if name not in self.names:
            raise ModelUnavailable(f"the model in {self._folder} has no tensor {name!r}")


def _read_index(path: Path) -> dict[str, str]:
    """`{tensor name: shard name}`."""
    shard_of = read_json_object(path).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise ModelUnavailable(f"cannot read {path}: it has no weight_map")
    if not all(isinstance(shard, str) for shard in shard_of.values()):
        raise ModelUnavailable(f"cannot read {path}: a shard in its weight_map is not a name")
    return shard_of


def _loose_shards(folder: Path) -> list[str]:
    if (folder / SINGLE).is_file():
        return [SINGLE]
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        raise ModelUnavailable(
            f"the model in {folder} has no .safetensors weights (pickled weights are refused)"
        )
    return names


def _read_headers(folder: Path, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """The tensors' names in each shard."""
    held: dict[str, frozenset[str]] = {}
    problems: list[str] = []
    for name in names:
        try:
            held[name] = frozenset(_open_shard(folder, name).keys())
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            problems.append(f"{name!r} {error}")
    if problems:
        raise ModelUnavailable(f"cannot read the model in {folder}: " + "; ".join(problems))
    return held


def _open_shard(folder: Path, name: str) -> Any:
    """One open shard, untyped since safetensors' own stubs are; its name is a plain one and it
    lies in the folder.

    In the hub's cache a snapshot's files are links into `blobs` folders, which are allowed.
    """
    path = (folder / name).resolve()
    homes = [folder]
    if folder.parent.name == "snapshots":
        repository = folder.parent.parent
        homes += [repository / "blobs", repository.parent / "blobs"]
    inside = any(path.is_relative_to(home.resolve()) for home in homes)
    if Path(name).name != name or not inside:
        raise ValueError("leads out of the folder")
    if not path.is_file():
        raise FileNotFoundError("is missing")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"is truncated or corrupt: {error}") from error


def _shard_of_each_tensor(folder: Path, held: Mapping[str, frozenset[str]]) -> dict[str, str]:
    counts = Counter(tensor for tensors in held.values() for tensor in tensors)
    twice = [tensor for tensor, count in counts.items() if count > 1]
    if twice:
        raise ModelUnavailable(
            f"cannot tell which weights to use in {folder}: {twice[0]!r} is in several of "
            + ", ".join(sorted(held))
        )
    return {tensor: name for name, tensors in held.items() for tensor in tensors}


def _check_promises(
    folder: Path, shard_of: Mapping[str, str], held: Mapping[str, frozenset[str]]
) -> None:
    missing = [
        f"{tensor!r} is not in {name!r}"
        for tensor, name in shard_of.items()
        if tensor not in held[name]
    ]
    if missing:
        raise ModelUnavailable(f"the index in {folder} is wrong: " + "; ".join(missing[:10]))
