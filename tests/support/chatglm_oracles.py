"""What the published code of the ChatGLM family computed for tiny random models."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

ORACLES = Path(
    os.environ.get("BURNISH_ORACLES") or Path(__file__).parents[2].parent / "shared" / "oracles"
)
FIRST = "chatglm1"
OTHERS = ["chatglm2", "chatglm3", "glm4_9b_chat_layout"]


class Oracle:
    """What the published code computed for one tiny model."""

    def __init__(self, family: str) -> None:
        self.folder = ORACLES / family
        if not self.folder.is_dir():
            pytest.skip(f"needs the oracle {family} (BURNISH_ORACLES)")
        self._arrays = np.load(self.folder / "oracle.npz")
        self.tolerance = 2e-4 if family == FIRST else 1e-4

    def __contains__(self, key: str) -> bool:
        return key in self._arrays.files

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self._arrays[key])

    def assert_close(self, found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=0, atol=self.tolerance)
