"""The matrices of LoRA adapters, and their product for each row of a step (Hu et al. 2021, 4.1).

One step may have rows of several adapters and of none. Knows matrices and rows; `lora.py` decides
which files are accepted.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.adapters.files import WEIGHTS, read_adapter_config
from engine.adapters.lora_config import scaling_of
from engine.errors import InvalidBundle
from engine.kernels.native import NativeKernels
from engine.models.decoder import LINEARS, CheckpointLayout, LinearSpec
from engine.time_slices import YieldToEngine, do_not_yield

MAX_PARTS = 3


@dataclass(frozen=True, slots=True)
class LoraPart:
    """One module inside a fused matrix: y[:, offset:offset + out] += (x A^T) B."""

    a: Tensor  # (rank, in); those of one matrix lie one after the other
    b: Tensor  # (rank, out), the scaling folded in
    offset: int


class _NativePart(ctypes.Structure):
    _fields_ = (
        ("b", ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ("rank", "rank_offset", "out", "out_offset")),
    )


class _NativeLora(ctypes.Structure):
    _fields_ = (
        ("a", ctypes.c_void_p),
        ("rank", ctypes.c_long),
        ("part_count", ctypes.c_long),
        ("parts", _NativePart * MAX_PARTS),
    )


class LoraMatrices:
    """The matrices of one adapter, for each layer and each of its four linears.

    They are float16 for the compiled kernel, which is used with quantized weights, else float32.
    """

    def __init__(
        self,
        folder: Path,
        layout: CheckpointLayout,
        *,
        device: str,
        native: bool,
        yield_to_engine: YieldToEngine = do_not_yield,
    ) -> None:
        """Read a *verified* PEFT folder; raises `InvalidBundle` for one that cannot be run.

        `yield_to_engine` is called between pieces of the work.
        """
        config, tensors = _read(folder, yield_to_engine)
        dtype = torch.float16 if native else torch.float32
        self._parts: list[tuple[LoraPart, ...]] = []
        for layer in layout.layers:
            for modules in layer.linears:
                self._parts.append(_parts(modules, tensors, config, dtype=dtype, device=device))
                yield_to_engine()
        if tensors:
            raise InvalidBundle([f"{min(tensors)} is not a matrix of this model's layers"])
        self._table = _native_table(self._parts) if native else None

    def parts(self, layer: int, linear: str) -> tuple[LoraPart, ...]:
        """The parts of one fused matrix that the adapter changes."""
        return self._parts[layer * len(LINEARS) + LINEARS.index(linear)]

    @property
    def address(self) -> int:
        """Address of the table from which the compiled kernel reads the matrices."""
        assert self._table is not None
        return ctypes.addressof(self._table)


class StepAdapters:
    """Implements `engine.models.decoder.RowAdapters` for the rows of one step."""

    def __init__(self, rows: Sequence[LoraMatrices | None], kernels: NativeKernels | None) -> None:
        """`rows`: the matrices of each row; `kernels`: the compiled ones that compute all rows."""
        self._native = kernels
        if kernels is not None:
            addresses = (0 if adapter is None else adapter.address for adapter in rows)
            self._addresses = (ctypes.c_void_p * len(rows))(*addresses)
        else:
            distinct = {id(adapter): adapter for adapter in rows if adapter is not None}
            self._groups = [
                (adapter, torch.tensor([i for i, row in enumerate(rows) if row is adapter]))
                for adapter in distinct.values()
            ]

    @property
    def address(self) -> int | None:
        """See `RowAdapters`."""
        return None if self._native is None else ctypes.addressof(self._addresses)

    def add(self, layer: int, linear: str, x: Tensor, y: Tensor) -> None:
        """y (T, out) += B (A x) for each row of x (T, in)."""
        if self._native is not None:
            index = layer * len(LINEARS) + LINEARS.index(linear)
            self._native.lora(
                x.data_ptr(), len(x), x.shape[1], self._addresses, index, y.data_ptr(), y.shape[1]
            )
            return
        for adapter, rows in self._groups:
            everyone = len(rows) == len(x)
            mine = x if everyone else x[rows.to(x.device)]
            for part in adapter.parts(layer, linear):
                change = mine @ part.a.to(x.dtype).T @ part.b.to(x.dtype)
                columns = y[:, part.offset : part.offset + part.b.shape[1]]
                if everyone:
                    columns += change
                else:
                    columns.index_add_(0, rows.to(x.device), change)


def _read(folder: Path, yield_to_engine: YieldToEngine) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    config = read_adapter_config(folder)
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                yield_to_engine()
                tensors[key] = file.get_tensor(key)
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidBundle([f"it cannot be read: {error}"]) from error
    return config, tensors


def _parts(
    modules: Sequence[LinearSpec],
    tensors: dict[str, Tensor],
    config: Mapping[str, Any],
    *,
    dtype: torch.dtype,
    device: str,
) -> tuple[LoraPart, ...]:
    """The parts of one fused matrix; their tensors are removed from `tensors`."""
    found: list[tuple[Tensor, Tensor, int]] = []
    offset = 0
    for module in modules:
        keys = [f"base_model.model.{module.name}.lora_{side}.weight" for side in "AB"]
        if all(key in tensors for key in keys):
            a, b = (tensors.pop(key) for key in keys)
            expected = (len(a), module.in_features), (module.out_features, len(a))
            if (tuple(a.shape), tuple(b.shape)) != expected:
                raise InvalidBundle([f"{keys[0]} or its B has not the shape of {module.name}"])
            b = b if module.rows is None else b[module.rows]
            b = (b.float() * scaling_of(config, module.name)).T.to(device, dtype).contiguous()
            found.append((a, b, offset))
        offset += module.out_features
    if not found:
        return ()
    stacked = torch.cat([a for a, _, _ in found]).to(device, dtype)
    rows = torch.split(stacked, [len(a) for a, _, _ in found])
    return tuple(LoraPart(a, b, offset) for a, (_, b, offset) in zip(rows, found, strict=True))


def _native_table(parts_of: Sequence[Sequence[LoraPart]]) -> Any:
    table = (_NativeLora * len(parts_of))()
    for entry, parts in zip(table, parts_of, strict=True):
        if not parts:
            continue
        entry.a, entry.part_count = parts[0].a.data_ptr(), len(parts)
        for slot, part in zip(entry.parts, parts, strict=False):
            rank, out = part.b.shape
            slot.b, slot.rank, slot.rank_offset = part.b.data_ptr(), rank, entry.rank
            slot.out, slot.out_offset = out, part.offset
            entry.rank += rank
    return table
