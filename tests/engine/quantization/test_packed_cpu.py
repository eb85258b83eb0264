"""Products with quantized matrices, however they are held, and whole blocks of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from engine.kernels.native import NativeKernels
from engine.kernels.portable import PortableKernels
from engine.models.kernel_selection import KernelChoice
from engine.quantization import Quantization
from engine.quantization.bitsandbytes import BitsLinear
from engine.quantization.groups import QuantizedMatrix, quantize_int4, quantize_int8
from engine.quantization.packed_cpu import NativeLinear, TorchInt4Linear, TorchInt8Linear
from tests.support.decoders import SIZES, Runner, random_ids, write_random

Quantize = Callable[[Tensor], QuantizedMatrix]
QUANTIZE = pytest.mark.parametrize("quantize", [quantize_int4, quantize_int8])
SHAPES = [(24, 96), (8, 32), (20, 136), (3, 40), (576, 1536)]  # (out, in)
ROWS = [1, 2, 5, 6, 7, 13, 61, 130]  # both sides of the kernel's tiles and blocks of rows
MODELS = {
    "llama": LlamaConfig(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=16),
    "qwen2": Qwen2Config(**SIZES),
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def off_by(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@QUANTIZE
@pytest.mark.parametrize(("out", "inputs"), SHAPES)
def test_a_compiled_product_is_that_of_the_restored_weights(
    native: NativeKernels, quantize: Quantize, out: int, inputs: int
) -> None:
    blocks, bias = quantize(torch.randn(out, inputs)), torch.randn(out)
    weight = blocks.dequantize()[:, :inputs]
    plain = NativeLinear(native, blocks, in_features=inputs)
    biased = NativeLinear(native, blocks, bias, in_features=inputs)
    assert (biased.out_features, biased.in_features) == (out, inputs)
    for rows in ROWS:
        x, residual = torch.randn(rows, inputs), torch.randn(rows, out)
        exact = x @ weight.T
        assert off_by(plain(x), exact) < 0.01
        torch.testing.assert_close(biased(x), plain(x) + bias, rtol=0, atol=1e-5)
        given = residual.clone()
        added = biased(x, given)
        assert added is given
        torch.testing.assert_close(added, residual + biased(x), rtol=0, atol=1e-5)


@QUANTIZE
@pytest.mark.parametrize(("out", "inputs"), [(20, 136), (64, 96)])
def test_inputs_of_eight_bits_give_the_exact_product(
    native: NativeKernels, quantize: Quantize, out: int, inputs: int
) -> None:
    """Whole numbers up to 127, of which each group has one: rounding them loses nothing."""
    blocks = quantize(torch.randn(out, inputs))
    x = torch.randint(-127, 128, (9, inputs)).float()
    x[:, ::32] = 127
    expected = x.double() @ blocks.dequantize()[:, :inputs].double().T
    found = NativeLinear(native, blocks, in_features=inputs)(x)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-3)


@QUANTIZE
def test_a_row_of_a_product_is_the_same_alone_and_in_any_batch_to_the_last_bit(
    native: NativeKernels, quantize: Quantize
) -> None:
    linear = NativeLinear(native, quantize(torch.randn(44, 136)), torch.randn(44), in_features=136)
    x = torch.randn(130, 136)
    alone = torch.cat([linear(row[None].clone()) for row in x])
    for rows in ROWS:
        assert torch.equal(linear(x[:rows]), alone[:rows])
        assert torch.equal(linear(x[-rows:]), alone[-rows:])


@QUANTIZE
def test_inputs_of_very_different_size_are_rounded_by_themselves(
    native: NativeKernels, quantize: Quantize
) -> None:
    linear = NativeLinear(native, quantize(torch.randn(16, 64)))
    small = torch.randn(1, 64) * 1e-6
    together = linear(torch.cat([small, torch.randn(1, 64) * 1e6]))
    assert torch.equal(together[:1], linear(small))
    assert not linear(torch.zeros(1, 64)).any()


def test_rows_of_an_int8_matrix_can_be_looked_up(native: NativeKernels) -> None:
    blocks = quantize_int8(torch.randn(21, 40))
    linear = NativeLinear(native, blocks, in_features=40)
    ids = torch.tensor([20, 0, 7, 8, 7])
    assert torch.equal(linear.rows(ids), blocks.dequantize()[ids, :40])


def test_a_matrix_reports_the_bytes_it_holds(native: NativeKernels) -> None:
    weight = torch.randn(16, 64)  # 32 groups
    assert NativeLinear(native, quantize_int8(weight)).weight_bytes == 1024 + 32 * 2
    assert NativeLinear(native, quantize_int4(weight)).weight_bytes == 512 + 32 * 4


@pytest.mark.parametrize(("out", "inputs"), [(32, 96), (64, 256), (20, 136), (64, 100), (3, 33)])
def test_torchs_own_products_are_those_of_the_restored_weights(out: int, inputs: int) -> None:
    weight, bias = torch.randn(out, inputs), torch.randn(out)
    blocks = quantize_int4(weight)
    int4, int8 = TorchInt4Linear(blocks, bias), TorchInt8Linear(weight, bias)
    x, residual = torch.randn(9, inputs), torch.randn(9, out)
    assert off_by(int4(x) - bias, x @ blocks.dequantize()[:, :inputs].T) < 0.01
    assert off_by(int8(x) - bias, x @ int8.rows(torch.arange(out)).T) < 0.01
    assert off_by(int8.rows(torch.arange(out)), weight) < 0.02
    for linear in (int4, int8):
        given = residual.clone()
        assert linear(x, given) is given
        torch.testing.assert_close(given, residual + linear(x))


def test_a_constant_zero_output_stays_zero_in_torchs_int8() -> None:
    weight = torch.randn(16, 32)
    weight[3] = 0
    assert not TorchInt8Linear(weight)(torch.randn(2, 32))[:, 3].any()


@pytest.mark.parametrize(("quantization", "loss"), [("int8", 0.02), ("int4", 0.13)])
def test_bitsandbytes_products_are_close_to_the_dense_one(
    quantization: Quantization, loss: float
) -> None:
    weight, bias = torch.randn(96, 128), torch.randn(96)
    linear = BitsLinear(weight, bias, quantization=quantization, dtype=torch.float32, device="cpu")
    x, residual = torch.randn(5, 128), torch.randn(5, 96)
    dense = x @ weight.T
    assert 0 < off_by(linear(x) - bias, dense) < loss
    given = residual.clone()
    assert linear(x, given) is given
    torch.testing.assert_close(given, residual + linear(x))
    assert linear.weight_bytes == 96 * 128 // (1 if quantization == "int8" else 2)


def test_bitsandbytes_int8_keeps_outlying_inputs_exact() -> None:
    """LLM.int8 multiplies features above 6 in half precision (Dettmers et al. 2022, 3.2)."""
    weight = torch.randn(32, 64)
    linear = BitsLinear(weight, None, quantization="int8", dtype=torch.float32, device="cpu")
    x = torch.randn(4, 64)
    x[:, 5] = 60
    assert off_by(linear(x), x @ weight.T) < 0.02


@pytest.mark.parametrize("quantization", ["int4", "int8"])
@pytest.mark.parametrize("model", MODELS)
def test_all_blocks_in_one_call_compute_the_same_to_the_last_bit(
    native: NativeKernels, tmp_path: Path, model: str, quantization: Quantization
) -> None:
    write_random(tmp_path, MODELS[model])
    fused = Runner.of(tmp_path, KernelChoice(native, ""), quantization)
    assert fused.decoder.fused is not None
    apart = Runner(fused.architecture, replace(fused.decoder, fused=None))
    a, b = random_ids(50, 1), random_ids(41, 2)
    results = []
    for runner in (fused, apart):
        first, second = runner.begin(a), runner.begin(b)
        results.append(
            [
                *runner.step((first, a[:33])),
                *runner.step((second, b[:40]), (first, a[33:49])),
                *runner.step((first, a[49:]), (second, b[40:])),
            ]
        )
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_blocks_can_be_run_over_one_cache_and_then_another(
    native: NativeKernels, tmp_path: Path
) -> None:
    write_random(tmp_path, MODELS["llama"])
    runner = Runner.of(tmp_path, KernelChoice(native, ""), "int8")
    other = Runner(runner.architecture, runner.decoder)
    ids = random_ids(20)
    text, twin = runner.begin(ids), other.begin(ids)
    expected = runner.logits(ids)
    runner.step((text, ids[:19]))
    other.step((twin, ids[:19]))
    for each, its in ((runner, text), (other, twin)):
        assert torch.equal(each.step((its, ids[19:]))[0][0], expected[19])


@pytest.mark.parametrize(("quantization", "loss"), [("int8", 0.1), ("int4", 0.6)])
def test_a_quantized_model_says_nearly_what_the_dense_one_does(
    choice: KernelChoice, tmp_path: Path, quantization: Quantization, loss: float
) -> None:
    """Nearly: a network of random weights makes ten times more of an error than a trained one."""
    write_random(tmp_path, MODELS["llama"])
    ids = random_ids(40)
    dense = Runner.of(tmp_path, choice).logits(ids)
    assert 0 < off_by(Runner.of(tmp_path, choice, quantization).logits(ids), dense) < loss


def test_the_same_four_bit_weights_say_the_same_on_either_kernels(
    native: NativeKernels, tmp_path: Path
) -> None:
    write_random(tmp_path, MODELS["llama"])
    ids = random_ids(40)
    compiled = Runner.of(tmp_path, KernelChoice(native, ""), "int4").logits(ids)
    by_torch = Runner.of(tmp_path, KernelChoice(PortableKernels(), ""), "int4").logits(ids)
    assert off_by(compiled, by_torch) < 0.1


def test_two_models_may_run_on_two_threads_at_once(native: NativeKernels, tmp_path: Path) -> None:
    write_random(tmp_path, MODELS["llama"])
    runners = [Runner.of(tmp_path, KernelChoice(native, ""), "int8", pages=200) for _ in range(2)]
    ids = random_ids(60)
    expected = runners[0].logits(ids)
    wrong: list[int] = []

    def run(runner: Runner) -> None:
        wrong.append(sum(not torch.equal(runner.logits(ids), expected) for _ in range(60)))

    threads = [Thread(target=run, args=(runner,)) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [0, 0]


@pytest.mark.parametrize("quantization", ["int4", "int8"])
def test_a_model_of_an_odd_width_is_run_by_torch(
    tmp_path: Path, quantization: Quantization
) -> None:
    write_random(tmp_path, LlamaConfig(**SIZES | {"intermediate_size": 100}))
    by_torch, ids = KernelChoice(PortableKernels(), ""), random_ids(9)
    dense = Runner.of(tmp_path, by_torch).logits(ids)
    assert 0 < off_by(Runner.of(tmp_path, by_torch, quantization).logits(ids), dense) < 0.6
