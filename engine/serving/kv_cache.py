"""The paged cache: keys and values in pages of 32 tokens, shared by sequences that begin alike.

The key of a full page is a hash of everything before its end: the adapter and all token ids. A page
that no sequence uses keeps its contents until its room is needed, or until more than
`most_idle_pages` do; the least recently used one is evicted first. The system gives a page memory
once it is written to, so that limit is one of memory. Knows pages and token ids; knows nothing of
requests or time.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.interface import PAGE_TOKENS, Heads, LayerCache

PageKey = bytes
# The id of every virtual token; the adapter and the position tell them apart
VIRTUAL_ID = -1


@dataclass(slots=True)
class BlockTable:
    """The pages of one sequence, in order; the first `shared` of them came from the cache."""

    pages: list[int]
    keys: list[PageKey]  # of the pages that are published
    shared: int
    adapter: str | None

    def slots(self, begin: int, end: int) -> Tensor:
        """Slots (end - begin,) int64 of tokens begin..end: page * PAGE_TOKENS + offset."""
        return torch.tensor(
            [
                self.pages[t // PAGE_TOKENS] * PAGE_TOKENS + t % PAGE_TOKENS
                for t in range(begin, end)
            ]
        )

    @property
    def cached_tokens(self) -> int:
        """Tokens of the shared pages, which need not be computed."""
        return self.shared * PAGE_TOKENS


@dataclass(frozen=True, slots=True)
class PinnedPrefix:
    """The virtual tokens of an adapter, in pages that stay until the adapter is freed."""

    tokens: int
    block_table: BlockTable


class PagedCache:
    """A fixed number of pages with reference counts, for every layer of a model."""

    def __init__(
        self,
        layer_count: int,
        heads: Heads,
        *,
        page_count: int,
        dtype: torch.dtype,
        device: str,
        share: bool = True,
        most_idle_pages: int | None = None,
    ) -> None:
        """`most_idle_pages`: None keeps as many as there are."""
        shape = (page_count, heads.kv, heads.dim, PAGE_TOKENS)
        self.layers = [
            LayerCache(
                torch.empty(shape, dtype=dtype, device=device),
                torch.empty(
                    page_count, heads.kv, PAGE_TOKENS, heads.dim, dtype=dtype, device=device
                ),
            )
            for _ in range(layer_count)
        ]
        self.page_count = page_count
        self._share = share
        self._most_idle_pages = page_count if most_idle_pages is None else most_idle_pages
        self._ref_count = [0] * page_count
        self._free = list(range(page_count))
        self._published: dict[PageKey, int] = {}
        self._key_of: dict[int, PageKey] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # published, unused; oldest first

    def allocate(
        self, adapter: str | None, prompt_ids: Sequence[int], tokens: int, *, reusable: int
    ) -> BlockTable | None:
        """Allocate pages for `tokens` tokens that begin with the prompt; None if there is no room.

        `reusable`: leading tokens of the prompt whose logits are not wanted, so that their pages
        may be shared.
        """
        keys = self._keys(adapter, prompt_ids, reusable // PAGE_TOKENS)
        shared = self._share_published(keys)
        wanted = pages_for(tokens) - len(shared)
        if wanted > len(self._free) + len(self._idle):
            self._free_pages(shared)
            return None
        return BlockTable(
            shared + [self._take_page() for _ in range(wanted)],
            keys[: len(shared)],
            len(shared),
            adapter,
        )

    def allocate_prefix(self, adapter: str, tokens: int) -> PinnedPrefix | None:
        """Allocate pages for the virtual tokens of an adapter; None if there is no room now."""
        block_table = self.allocate(adapter, (VIRTUAL_ID,) * tokens, tokens, reusable=tokens)
        return None if block_table is None else PinnedPrefix(tokens, block_table)

    def publish_prefix(self, prefix: PinnedPrefix) -> None:
        """Let sequences share the full pages of a prefix."""
        self.publish(
            prefix.block_table, lambda begin, end: (VIRTUAL_ID,) * (end - begin), prefix.tokens
        )

    def put(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write tokens at `slots` (tokens,): keys and values (layers, tokens, kv heads, dim)."""
        page, offset = slots // PAGE_TOKENS, slots % PAGE_TOKENS
        for layer, k, v in zip(self.layers, keys, values, strict=True):
            layer.keys[page, :, :, offset] = k.to(layer.keys.dtype)
            layer.values[page, :, offset] = v.to(layer.values.dtype)

    def copy_prefix(self, block_table: BlockTable, prefix: PinnedPrefix) -> int:
        """Begin a sequence with a prefix; returns how many of its tokens are cached then.

        Full pages of the prefix are shared already. The last one, which the sequence writes into,
        is copied, and all of them where nothing is shared.
        """
        for index in range(block_table.shared, pages_for(prefix.tokens)):
            source, target = prefix.block_table.pages[index], block_table.pages[index]
            for layer in self.layers:
                layer.keys[target] = layer.keys[source]
                layer.values[target] = layer.values[source]
        return max(block_table.cached_tokens, prefix.tokens)

    def publish(
        self, block_table: BlockTable, ids: Callable[[int, int], Sequence[int]], computed: int
    ) -> None:
        """Let others share the pages that the first `computed` tokens have filled.

        `ids(begin, end)` returns token ids of the sequence.
        """
        if not self._share:
            return
        for index in range(len(block_table.keys), computed // PAGE_TOKENS):
            before = block_table.keys[-1] if block_table.keys else _root(block_table.adapter)
            key = _next_key(before, ids(index * PAGE_TOKENS, (index + 1) * PAGE_TOKENS))
            block_table.keys.append(key)
            if key not in self._published:
                page = block_table.pages[index]
                self._published[key], self._key_of[page] = page, key

    def could_share(
        self,
        ids: Sequence[int],
        adapter: str | None,
        other_ids: Sequence[int],
        other_adapter: str | None,
    ) -> bool:
        """Return whether two prompts have a page in common that is not published yet."""
        if not self._share or adapter != other_adapter:
            return False
        common = 0
        for mine, theirs in zip(ids, other_ids, strict=False):
            if mine != theirs:
                break
            common += 1
        keys = self._keys(adapter, ids, min(common, len(ids) - 1) // PAGE_TOKENS)
        return any(key not in self._published for key in keys)

    def free(self, block_table: BlockTable) -> None:
        """Free the pages; published ones keep their contents until their room is needed."""
        self._free_pages(block_table.pages)
        block_table.pages = []

    @property
    def used_pages(self) -> int:
        """Pages that sequences and prefixes use."""
        return self.page_count - len(self._free) - len(self._idle)

    @property
    def idle_pages(self) -> int:
        """Pages that no sequence uses, kept for sequences to come."""
        return len(self._idle)

    def _keys(self, adapter: str | None, ids: Sequence[int], pages: int) -> list[PageKey]:
        if not self._share:
            return []
        keys, key = [], _root(adapter)
        for index in range(pages):
            key = _next_key(key, ids[index * PAGE_TOKENS : (index + 1) * PAGE_TOKENS])
            keys.append(key)
        return keys

    def _share_published(self, keys: Sequence[PageKey]) -> list[int]:
        taken = []
        for key in keys:
            page = self._published.get(key)
            if page is None:
                break
            self._ref_count[page] += 1
            self._idle.pop(page, None)
            taken.append(page)
        return taken

    def _take_page(self) -> int:
        if not self._free or len(self._idle) > self._most_idle_pages:
            page, _ = self._idle.popitem(last=False)
            del self._published[self._key_of.pop(page)]
        else:
            page = self._free.pop()
        self._ref_count[page] = 1
        return page

    def _free_pages(self, pages: Sequence[int]) -> None:
        # The last page first, so that it is evicted first: without its beginning it is of no use
        for page in reversed(pages):
            self._ref_count[page] -= 1
            if self._ref_count[page] == 0:
                if page in self._key_of:
                    self._idle[page] = None
                else:
                    self._free.append(page)


def pages_for(tokens: int) -> int:
    """Pages that hold this many tokens."""
    return -(-tokens // PAGE_TOKENS)


def page_bytes(layer_count: int, heads: Heads, dtype: torch.dtype) -> int:
    """Bytes of one page of every layer."""
    return 2 * layer_count * heads.kv * heads.dim * PAGE_TOKENS * dtype.itemsize


def _root(adapter: str | None) -> PageKey:
    return hashlib.sha256((adapter or "").encode()).digest()


def _next_key(before: PageKey, ids: Sequence[int]) -> PageKey:
    return hashlib.sha256(before + array("q", ids).tobytes()).digest()
