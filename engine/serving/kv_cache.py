"""Keys and values in pages of 32 tokens, shared between sequences that begin alike.

A full page is known by the chain of everything before it: (adapter, token ids up to its end). A
page that no sequence uses stays until its room is needed, the least recently used one going first.
Knows pages and token ids; knows nothing of requests or time.
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
# Stands for a virtual token, which has no id; which one it is, its place and the adapter tell
VIRTUAL_ID = -1


@dataclass(slots=True)
class BlockTable:
    """The pages of one sequence, in order; the first `shared` of them were found in the cache."""

    pages: list[int]
    keys: list[PageKey]  # of the full pages published so far
    shared: int
    adapter: str | None

    def slots(self, begin: int, end: int) -> Tensor:
        """Where keys and values of tokens begin..end go: page * PAGE_TOKENS + offset, int64."""
        return torch.tensor(
            [
                self.pages[t // PAGE_TOKENS] * PAGE_TOKENS + t % PAGE_TOKENS
                for t in range(begin, end)
            ]
        )

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values need not be computed."""
        return self.shared * PAGE_TOKENS


@dataclass(frozen=True, slots=True)
class PinnedPrefix:
    """Leading tokens of every sequence of an adapter, in pages that stay until it is freed."""

    tokens: int
    block_table: BlockTable


class PagedCache:
    """A fixed number of pages."""

    def __init__(
        self,
        layer_count: int,
        heads: Heads,
        *,
        page_count: int,
        dtype: torch.dtype,
        device: str,
        share: bool = True,
    ) -> None:
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
        self._users = [0] * page_count
        self._free = list(range(page_count))
        self._known: dict[PageKey, int] = {}
        self._key_of: dict[int, PageKey] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # known, unused; oldest first

    def allocate(
        self, adapter: str | None, prompt_ids: Sequence[int], tokens: int, *, reusable: int
    ) -> BlockTable | None:
        """Pages for `tokens` tokens that begin with the prompt; None while there is no room.

        `reusable`: of the prompt's tokens, those that need not be computed again; the logits of
        the others are wanted.
        """
        keys = self._keys(adapter, prompt_ids, reusable // PAGE_TOKENS)
        shared = self._take_known(keys)
        wanted = pages_for(tokens) - len(shared)
        if wanted > len(self._free) + len(self._idle):
            self._free_pages(shared)
            return None
        return BlockTable(
            shared + [self._take_one() for _ in range(wanted)],
            keys[: len(shared)],
            len(shared),
            adapter,
        )

    def allocate_prefix(self, adapter: str, tokens: int) -> PinnedPrefix | None:
        """Pages for the virtual tokens of an adapter; None where there is no room now."""
        block_table = self.allocate(adapter, (VIRTUAL_ID,) * tokens, tokens, reusable=tokens)
        return None if block_table is None else PinnedPrefix(tokens, block_table)

    def publish_prefix(self, prefix: PinnedPrefix) -> None:
        """Let sequences begin with the pages that it has filled."""
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
        """Put a prefix at the beginning of a block_table; returns the tokens that are cached then.

        Its full pages are shared. The last one, which the sequence will write into, is copied; so
        are all of them where nothing is shared.
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
        """Let others share the pages that the first `computed` tokens have filled; `ids(begin,
        end)` gives tokens."""
        if not self._share:
            return
        for index in range(len(block_table.keys), computed // PAGE_TOKENS):
            before = block_table.keys[-1] if block_table.keys else _root(block_table.adapter)
            key = _next_key(before, ids(index * PAGE_TOKENS, (index + 1) * PAGE_TOKENS))
            block_table.keys.append(key)
            if key not in self._known:
                page = block_table.pages[index]
                self._known[key], self._key_of[page] = page, key

    def could_share(
        self,
        ids: Sequence[int],
        adapter: str | None,
        other_ids: Sequence[int],
        other_adapter: str | None,
    ) -> bool:
        """Whether two prompts could share a page that neither has yet."""
        if not self._share or adapter != other_adapter:
            return False
        common = 0
        for mine, theirs in zip(ids, other_ids, strict=False):
            if mine != theirs:
                break
            common += 1
        keys = self._keys(adapter, ids, min(common, len(ids) - 1) // PAGE_TOKENS)
        return any(key not in self._known for key in keys)

    def free(self, block_table: BlockTable) -> None:
        """Give the pages back; known ones stay until their room is needed."""
        self._free_pages(block_table.pages)
        block_table.pages = []

    @property
    def used_pages(self) -> int:
        """Pages that running sequences hold."""
        return self.page_count - len(self._free) - len(self._idle)

    @property
    def idle_pages(self) -> int:
        """Pages kept only for sequences to come."""
        return len(self._idle)

    def _keys(self, adapter: str | None, ids: Sequence[int], pages: int) -> list[PageKey]:
        if not self._share:
            return []
        keys, key = [], _root(adapter)
        for index in range(pages):
            key = _next_key(key, ids[index * PAGE_TOKENS : (index + 1) * PAGE_TOKENS])
            keys.append(key)
        return keys

    def _take_known(self, keys: Sequence[PageKey]) -> list[int]:
        taken = []
        for key in keys:
            page = self._known.get(key)
            if page is None:
                break
            self._users[page] += 1
            self._idle.pop(page, None)
            taken.append(page)
        return taken

    def _take_one(self) -> int:
        if not self._free:
            page, _ = self._idle.popitem(last=False)
            del self._known[self._key_of.pop(page)]
        else:
            page = self._free.pop()
        self._users[page] = 1
        return page

    def _free_pages(self, pages: Sequence[int]) -> None:
        # The last page first: a chain is worth nothing once its beginning is gone
        for page in reversed(pages):
            self._users[page] -= 1
            if self._users[page] == 0:
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
