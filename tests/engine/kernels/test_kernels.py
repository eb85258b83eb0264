"""The compiled kernels compute what `portable.py` says, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.interface import PAGE_TOKENS, AttentionMetadata, Heads, Kernels, LayerCache
from engine.kernels.native import NativeKernels
from engine.kernels.portable import PortableKernels
from engine.models.kernel_selection import KernelChoice

PORTABLE = PortableKernels()
PAGES = 10  # of each sequence
SHAPES = {
    "one head": Heads(1, 1, 64, rotated=64),
    "grouped by 3": Heads(9, 3, 64, rotated=64),
    "grouped by 4, half rotated": Heads(8, 2, 128, rotated=64),
    "narrow, half rotated": Heads(4, 2, 16, rotated=8),
    "24 channels": Heads(4, 4, 24, rotated=24),
    "one shared head": Heads(5, 1, 16, rotated=16),
    "window": Heads(4, 2, 24, rotated=24, window=20),
    "window of one page": Heads(4, 2, 16, rotated=16, window=PAGE_TOKENS),
}
BATCHES: dict[str, list[tuple[int, ...]]] = {  # tokens of each sequence in each of the steps
    "whole prompts": [(70, 5), (1, 1)],
    "chunks": [(33, 1), (31, 40), (1, 33)],
    "answers": [(3, 32), (1, 1), (1, 1)],
    "three, one of a page": [(32, 64, 2), (17, 1, 16)],
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@dataclass
class Sequences:
    """Growing sequences, with their keys and values in a cache of pages in no order."""

    heads: Heads
    count: int
    dtype: torch.dtype
    seed: int = 0

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        pages = self.count * PAGES + 3
        order = torch.randperm(pages, generator=self.generator)[: self.count * PAGES]
        self.pages = order.view(self.count, PAGES).int()
        self.frequencies = torch.rand(self.heads.rotated // 2, generator=self.generator)
        # what no token has filled must not be looked at
        keys = torch.full((pages, self.heads.kv, self.heads.dim, PAGE_TOKENS), torch.nan)
        self.keys = keys.to(self.dtype)
        self.values = keys.transpose(2, 3).contiguous().to(self.dtype)
        self.past = [0] * self.count

    def step(
        self, counts: Sequence[int], prefixes: Sequence[int] = ()
    ) -> tuple[Tensor, AttentionMetadata]:
        """Random queries, keys and values of the next tokens, and where they belong."""
        prefixes = prefixes or [0] * self.count
        spans = [torch.arange(past, past + n) for past, n in zip(self.past, counts, strict=True)]
        first = torch.tensor([0, *counts]).cumsum(0)[:-1].tolist()
        sequences = torch.tensor(list(zip(first, counts, self.past, prefixes, strict=True)))
        slots = torch.cat(
            [
                pages[span // PAGE_TOKENS].long() * PAGE_TOKENS + span % PAGE_TOKENS
                for pages, span in zip(self.pages, spans, strict=True)
            ]
        )
        angles = torch.cat(spans)[:, None] * self.frequencies
        self.past = [past + n for past, n in zip(self.past, counts, strict=True)]
        qkv = torch.randn(sum(counts), self.heads.width, generator=self.generator)
        return qkv, AttentionMetadata(sequences, self.pages, slots, angles.cos(), angles.sin())

    def cache(self) -> LayerCache:
        """A copy of the empty cache."""
        return LayerCache(self.keys.clone(), self.values.clone())


def both(
    kernels: Kernels, qkv: Tensor, heads: Heads, step: AttentionMetadata, cache: LayerCache
) -> tuple[Tensor, Tensor]:
    """Queries and keys turned, and what attention saw."""
    turned = qkv.clone()
    kernels.rotate_and_store(turned, heads, step, cache)
    return turned, kernels.attention(turned, heads, step, cache)


@pytest.mark.parametrize("n", [8, 64, 576, 4096])
@pytest.mark.parametrize("eps", [1e-5, 1e-6, 1.5625e-07])
def test_rms_norm_is_that_of_torch(native: NativeKernels, n: int, eps: float) -> None:
    x, weight = torch.randn(7, n), torch.randn(n)
    x[3] *= 1e-4  # where eps counts
    torch.testing.assert_close(
        native.rms_norm(x, weight, eps), PORTABLE.rms_norm(x, weight, eps), rtol=1e-5, atol=1e-6
    )


def test_rms_norm_of_heads_is_taken_head_by_head(native: NativeKernels) -> None:
    x, weight = torch.randn(5, 3, 16), torch.randn(16)
    torch.testing.assert_close(
        native.rms_norm(x, weight, 1e-6), PORTABLE.rms_norm(x, weight, 1e-6), rtol=1e-5, atol=1e-6
    )


def test_rms_norm_of_zeros_is_zero(native: NativeKernels) -> None:
    assert not native.rms_norm(torch.zeros(2, 32), torch.ones(32), 1e-6).any()


@pytest.mark.parametrize("scale", [1.0, 30.0, 200.0])
def test_gated_silu_is_that_of_torch_up_to_where_the_exponential_ends(
    native: NativeKernels, scale: float
) -> None:
    gate_up = torch.randn(6, 2 * 136) * scale
    torch.testing.assert_close(
        native.gated_silu(gate_up), PORTABLE.gated_silu(gate_up), rtol=1e-5, atol=1e-5
    )


def test_gated_silu_takes_the_gate_from_the_first_half(native: NativeKernels) -> None:
    gate_up = torch.tensor([[1.0] * 8 + [3.0] * 8])
    expected = torch.full((1, 8), 3.0 * torch.sigmoid(torch.tensor(1.0)).item())
    torch.testing.assert_close(native.gated_silu(gate_up), expected)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_attention_over_a_paged_cache_is_that_of_torch(
    native: NativeKernels, shape: str, batch: str, dtype: torch.dtype
) -> None:
    heads, steps = SHAPES[shape], BATCHES[batch]
    texts = Sequences(heads, len(steps[0]), dtype)
    mine, theirs = texts.cache(), texts.cache()
    for counts in steps:
        qkv, step = texts.step(counts)
        turned, seen = both(native, qkv, heads, step, mine)
        expected_turned, expected = both(PORTABLE, qkv, heads, step, theirs)
        torch.testing.assert_close(turned, expected_turned, rtol=1e-5, atol=1e-5)
        # a number at the edge between two halves may go to either
        atol = 1e-5 if dtype == torch.float32 else 2e-3
        torch.testing.assert_close(seen, expected, rtol=0, atol=atol)
        for stored, wanted in ((mine.keys, theirs.keys), (mine.values, theirs.values)):
            torch.testing.assert_close(stored, wanted, rtol=1e-3, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("shape", ["narrow, half rotated", "one head", "24 channels"])
def test_tokens_of_a_prefix_see_each_other_both_ways(
    native: NativeKernels, shape: str, dtype: torch.dtype
) -> None:
    heads = SHAPES[shape]
    texts = Sequences(heads, 2, dtype)
    mine, theirs = texts.cache(), texts.cache()
    for counts, prefixes in (((45, 7), (40, 7)), ((1, 33), (40, 7)), ((1, 1), (40, 7))):
        qkv, step = texts.step(counts, prefixes)
        seen = both(native, qkv, heads, step, mine)[1]
        expected = both(PORTABLE, qkv, heads, step, theirs)[1]
        atol = 1e-5 if dtype == torch.float32 else 2e-3
        torch.testing.assert_close(seen, expected, rtol=0, atol=atol)


def test_attention_is_the_softmax_written_out(choice: KernelChoice) -> None:
    """One head of one sequence without rotation, by the formula."""
    heads = Heads(1, 1, 8, rotated=8)
    texts = Sequences(heads, 1, torch.float32)
    texts.frequencies.zero_()
    qkv, step = texts.step([40])
    seen = both(choice.kernels, qkv, heads, step, texts.cache())[1]
    query, key, value = qkv.double().chunk(3, dim=1)
    scores = (query @ key.T / 8**0.5).masked_fill(~torch.ones(40, 40).tril().bool(), -torch.inf)
    torch.testing.assert_close(seen, (scores.softmax(1) @ value).float(), rtol=1e-5, atol=1e-5)


def test_rotation_turns_a_pair_by_its_angle(choice: KernelChoice) -> None:
    heads = Heads(1, 1, 8, rotated=4)
    texts = Sequences(heads, 1, torch.float32)
    texts.frequencies = torch.tensor([torch.pi / 2, torch.pi])
    texts.past = [1]
    _, step = texts.step([1])
    qkv = torch.arange(1.0, 25.0)[None]
    cache = texts.cache()
    turned = both(choice.kernels, qkv, heads, step, cache)[0][0]
    # channels 0 and 2 by a quarter, 1 and 3 by a half, the others and the value stay
    expected = torch.tensor(
        [-3.0, -2, 1, -4, 5, 6, 7, 8, -11, -10, 9, -12, 13, 14, 15, 16, *range(17, 25)]
    )
    torch.testing.assert_close(turned, expected, rtol=1e-6, atol=1e-5)
    page = int(texts.pages[0, 0])
    torch.testing.assert_close(cache.keys[page, 0, :, 1], turned[8:16], rtol=0, atol=0)
    torch.testing.assert_close(cache.values[page, 0, 1], turned[16:], rtol=0, atol=0)


def test_scores_too_large_for_the_exponential_leave_the_best_token(native: NativeKernels) -> None:
    heads = Heads(2, 1, 16, rotated=16)
    texts = Sequences(heads, 1, torch.float32)
    qkv, step = texts.step([70])
    qkv *= 40
    seen = both(native, qkv, heads, step, texts.cache())[1]
    expected = both(PORTABLE, qkv, heads, step, texts.cache())[1]
    assert torch.isfinite(seen).all()
    torch.testing.assert_close(seen, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("shape", ["grouped by 3", "24 channels", "window"])
def test_a_sequence_sees_the_same_alone_and_in_a_batch_to_the_last_bit(
    native: NativeKernels, shape: str, dtype: torch.dtype
) -> None:
    heads = SHAPES[shape]
    texts = Sequences(heads, 3, dtype)
    together, alone = texts.cache(), texts.cache()
    for counts in ((70, 5, 33), (1, 40, 2), (1, 1, 1)):
        qkv, step = texts.step(counts)
        seen = both(native, qkv, heads, step, together)[1]
        for index, (first, count, past, prefix) in enumerate(step.sequences.tolist()):
            mine = slice(first, first + count)
            single = AttentionMetadata(
                torch.tensor([[0, count, past, prefix]]),
                step.pages[index : index + 1],
                *(t[mine].contiguous() for t in (step.slots, step.cos, step.sin)),
            )
            assert torch.equal(both(native, qkv[mine], heads, single, alone)[1], seen[mine])


def test_a_prompt_sees_the_same_whole_and_in_chunks_to_the_last_bit(native: NativeKernels) -> None:
    heads = SHAPES["grouped by 3"]
    texts = Sequences(heads, 1, torch.float16)
    qkv, step = texts.step([70])
    whole = both(native, qkv, heads, step, texts.cache())[1]
    cache, chunks = texts.cache(), []
    for begin, end in ((0, 1), (1, 33), (33, 69), (69, 70)):
        chunk = AttentionMetadata(
            torch.tensor([[0, end - begin, begin, 0]]),
            step.pages,
            *(t[begin:end].contiguous() for t in (step.slots, step.cos, step.sin)),
        )
        chunks.append(both(native, qkv[begin:end], heads, chunk, cache)[1])
    assert torch.equal(torch.cat(chunks), whole)


def test_norm_and_activation_of_a_row_are_the_same_in_any_batch(native: NativeKernels) -> None:
    x, weight = torch.randn(9, 64), torch.randn(64)
    assert torch.equal(
        native.rms_norm(x, weight, 1e-5),
        torch.cat([native.rms_norm(row[None], weight, 1e-5) for row in x]),
    )
    assert torch.equal(
        native.gated_silu(x), torch.cat([native.gated_silu(row[None].clone()) for row in x])
    )


def test_torchs_own_attention_keeps_sequences_apart() -> None:
    heads = SHAPES["narrow, half rotated"]
    texts = Sequences(heads, 2, torch.float32)
    qkv, step = texts.step((20, 9))
    turned, seen = both(PORTABLE, qkv, heads, step, texts.cache())
    for first, count in ((0, 20), (20, 9)):
        rows = turned[first : first + count].view(count, -1, 16).transpose(0, 1)
        query, key, value = rows[:4], rows[4:6], rows[6:]
        expected = F.scaled_dot_product_attention(
            query, key.repeat_interleave(2, 0), value.repeat_interleave(2, 0), is_causal=True
        )
        mine = seen[first : first + count]
        torch.testing.assert_close(mine, expected.transpose(0, 1).flatten(1), rtol=0, atol=1e-5)
