"""Loading needs little more memory than its result, and the result is not another for it.

How little is measured by `benchmarks/loading.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.models import loading
from engine.models.checkpoint import INDEX, FolderCheckpoint
from engine.models.loading import SLAB_WEIGHTS
from engine.quantization.groups import QuantizedMatrix, quantize_int4, quantize_int8

MAPS = Path("/proc/self/maps")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Two shards of one tensor each, filled with 1 and with 2."""
    for number in (1, 2):
        tensor = torch.full((64, 64), float(number))
        save_file({f"t{number}": tensor}, tmp_path / f"part-{number}.safetensors")
    names = {"t1": "part-1.safetensors", "t2": "part-2.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": names}))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_shards_may_be_read_in_any_order(sharded: Path) -> None:
    checkpoint = FolderCheckpoint(sharded)
    tensors = [checkpoint.tensor(name) for name in ("t2", "t1", "t2", "t1")]
    assert [float(t.mean()) for t in tensors] == [2, 1, 2, 1]


@pytest.mark.skipif(not MAPS.exists(), reason="needs Linux's list of mapped files")
def test_a_shard_is_no_longer_mapped_once_another_is_read(sharded: Path) -> None:
    checkpoint = FolderCheckpoint(sharded)
    assert str(sharded) not in MAPS.read_text()  # only the headers were read
    checkpoint.tensor("t1")
    assert str(sharded / "part-1.safetensors") in MAPS.read_text()
    checkpoint.tensor("t2")
    assert str(sharded / "part-1.safetensors") not in MAPS.read_text()


@pytest.mark.parametrize("quantize", [quantize_int4, quantize_int8])
@pytest.mark.parametrize(
    "shape",
    [
        (3 * SLAB_WEIGHTS // 64 + 5, 64),  # the last slab is shorter
        (7, 40),  # one slab, the last group of each row padded
        (2, SLAB_WEIGHTS + 32),  # not even a row fits
    ],
)
def test_a_matrix_rounded_a_few_rows_at_a_time_is_the_one_rounded_at_once(
    quantize: Callable[[Tensor], QuantizedMatrix], shape: tuple[int, int]
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    slabs, whole = loading.quantize_in_slabs(quantize, weight), quantize(weight)
    assert torch.equal(slabs.codes, whole.codes)
    assert torch.equal(slabs.scales, whole.scales)
    assert slabs.bits == whole.bits
    if whole.mins is not None:
        assert slabs.mins is not None
        assert torch.equal(slabs.mins, whole.mins)
