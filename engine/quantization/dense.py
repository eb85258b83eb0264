"""Dense weights, in the number format that the device computes best."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class DenseLinear:
    """A matrix in `dtype`; inputs and results are float32."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, dtype: torch.dtype, device: str
    ) -> None:
        self.out_features, self.in_features = weight.shape
        self._weight = weight.to(device, dtype)
        self._bias = None if bias is None else bias.to(device, torch.float32)

    def __call__(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """x (T, in) -> (T, out); with `add_to` (T, out), added to it in place."""
        y = F.linear(x.to(self._weight.dtype), self._weight).float()
        if self._bias is not None:
            y += self._bias
        return y if add_to is None else add_to.add_(y)

    def rows(self, ids: Tensor) -> Tensor:
        """See `Embedding`."""
        return self._weight[ids].float()

    @property
    def weight_bytes(self) -> int:
        """Bytes in memory."""
        return self._weight.nbytes + (0 if self._bias is None else self._bias.nbytes)
