"""int8 and int4 weights on a processor, in the layout of the compiled kernels or of torch's own.

Knows layouts; knows nothing of layers, models or files.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.native import NativeKernels, NativeMatrix
from engine.quantization.groups import GROUP, QuantizedMatrix

LANES = 8  # outputs that lie side by side
TORCH_LANES = 16  # the same in torch's 4-bit layout


class NativeLinear:
    """A quantized matrix laid out for `cpu.cpp`; inputs are rounded to 8 bits, 32 at a time.

    codes   # int8: (out/8, in/32, 8 quads of inputs, 8 outputs, 4 inputs)
            # int4: (out/8, in/32, 4, 8, 4) bytes, quads 0..3 in the low nibbles, 4..7 in the high
    scales  # (out/8, in/32, 8) float16, mins alike for int4
    """

    def __init__(
        self,
        kernels: NativeKernels,
        blocks: QuantizedMatrix,
        bias: Tensor | None = None,
        *,
        in_features: int | None = None,
    ) -> None:
        self.out_features = len(blocks.codes)
        self.in_features = in_features or blocks.codes.shape[1]
        self._kernels = kernels
        self._bias = None if bias is None else bias.float().contiguous()
        lanes = _lanes(blocks.codes)  # (out/8, 8, in)
        quads = lanes.reshape(len(lanes), LANES, -1, GROUP // 4, 4).permute(0, 2, 3, 1, 4)
        if blocks.mins is None:
            self._codes, self._mins = quads.contiguous(), None
        else:
            self._codes = (quads[:, :, :4] | (quads[:, :, 4:] << 4)).contiguous()
            self._mins = _lanes(blocks.mins).transpose(1, 2).contiguous()
        self._scales = _lanes(blocks.scales).transpose(1, 2).contiguous()

    def __call__(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """x (T, in) -> (T, out); with `add_to` (T, out), added to it in place."""
        y = x.new_empty(len(x), self.out_features) if add_to is None else add_to
        bias = 0 if self._bias is None else self._bias.data_ptr()
        inputs = x.data_ptr(), len(x), self.in_features, self._codes.data_ptr()
        scales, out = self._scales.data_ptr(), self.out_features
        adds = add_to is not None
        if self._mins is None:
            self._kernels.linear_int8(*inputs, scales, out, bias, y.data_ptr(), adds)
        else:
            mins = self._mins.data_ptr()
            self._kernels.linear_int4(*inputs, scales, mins, out, bias, y.data_ptr(), adds)
        return y

    def native(self) -> NativeMatrix:
        """The addresses of the matrix for cpu.cpp; valid while this object lives."""
        return NativeMatrix(
            8 if self._mins is None else 4,
            self.in_features,
            self.out_features,
            *(
                None if t is None else t.data_ptr()
                for t in (self._codes, self._scales, self._mins, self._bias)
            ),
        )

    def rows(self, ids: Tensor) -> Tensor:
        """See `Embedding`; 8 bits only."""
        assert self._mins is None
        codes = self._codes[ids // LANES, :, :, ids % LANES].flatten(2).float()  # (n, in/32, 32)
        scales = self._scales[ids // LANES, :, ids % LANES].float()
        weights: Tensor = (codes * scales[..., None]).flatten(1)[:, : self.in_features]
        return weights

    @property
    def weight_bytes(self) -> int:
        """Bytes in memory."""
        held = [self._codes, self._scales, self._mins, self._bias]
        return sum(t.nbytes for t in held if t is not None)


def _lanes(by_output: Tensor) -> Tensor:
    """(out, n) -> (out/8, 8, n), padded with zeros."""
    missing = -len(by_output) % LANES
    return F.pad(by_output, (0, 0, 0, missing)).reshape(-1, LANES, by_output.shape[1])


class TorchInt4Linear:
    """A quantized matrix in torch's own 4-bit layout, for processors that `cpu.cpp` cannot run on.

    Scales are held in bfloat16, the format of torch's kernel: a second rounding, of 8 bits.
    """

    def __init__(self, blocks: QuantizedMatrix, bias: Tensor | None = None) -> None:
        assert blocks.mins is not None
        self.out_features, self.in_features = blocks.codes.shape
        self._bias = bias
        missing = (0, 0, 0, -self.out_features % TORCH_LANES)
        codes, scales, mins = (
            F.pad(t, missing) for t in (blocks.codes, blocks.scales.float(), blocks.mins.float())
        )
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 1)
        # torch's code means scale * (code - 8) + zero
        pair = torch.stack([scales, mins + 8 * scales], dim=-1).transpose(0, 1)
        self._scales_and_zeros = pair.to(torch.bfloat16).contiguous()  # (in/32, out, 2)

    def __call__(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """x (T, in) -> (T, out)."""
        padded = F.pad(x, (0, self.in_features - x.shape[1])).to(torch.bfloat16)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(
            padded, self._packed, GROUP, self._scales_and_zeros
        )
        return _finish(y[:, : self.out_features].float(), self._bias, add_to)

    @property
    def weight_bytes(self) -> int:
        """Bytes in memory."""
        held: int = self._packed.nbytes + self._scales_and_zeros.nbytes
        return held


class TorchInt8Linear:
    """8-bit weights in torch's own layout, one scale an output.

    torch's kernel reads beyond the end of inputs that do not fill its registers: zeros fill them.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.out_features, self.in_features = weight.shape
        self._bias = bias
        scales = weight.float().abs().amax(1) / 127
        codes = (weight.float() / scales.clamp(min=1e-12)[:, None]).round().to(torch.int8)
        self._missing = -self.in_features % GROUP
        self._codes = F.pad(codes, (0, self._missing))
        self._scales = scales.to(torch.bfloat16)

    def __call__(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """x (T, in) -> (T, out); with `add_to` (T, out), added to it in place."""
        padded = F.pad(x, (0, self._missing)).to(torch.bfloat16)
        y = torch.ops.aten._weight_int8pack_mm(padded, self._codes, self._scales)
        return _finish(y.float(), self._bias, add_to)

    def rows(self, ids: Tensor) -> Tensor:
        """See `Embedding`."""
        weights = self._codes[ids].float() * self._scales[ids].float()[:, None]
        return weights[:, : self.in_features]

    @property
    def weight_bytes(self) -> int:
        """Bytes in memory."""
        return self._codes.nbytes + self._scales.nbytes


def _finish(y: Tensor, bias: Tensor | None, add_to: Tensor | None) -> Tensor:
    if bias is not None:
        y += bias
    return y if add_to is None else add_to.add_(y)
