"""The pages of sequences and of adapters' virtual tokens in a `PagedCache`.

Knows sequences; keys, pages and what they share are the cache's.
"""

from __future__ import annotations

from engine.kernels.interface import PAGE_TOKENS
from engine.serving.kv_cache import PagedCache, PinnedPrefix
from engine.serving.sequence import Sequence


class BlockManager:
    """Allocates, publishes and frees the block tables of sequences. One thread at a time."""

    def __init__(self, cache: PagedCache) -> None:
        self._cache = cache
        self._prefixes: dict[str, PinnedPrefix] = {}

    @property
    def capacity_tokens(self) -> int:
        """Tokens that one sequence may have beside the pinned prefixes."""
        pinned = sum(len(prefix.block_table.pages) for prefix in list(self._prefixes.values()))
        return (self._cache.page_count - pinned) * PAGE_TOKENS

    def pin(self, adapter: str, tokens: int) -> PinnedPrefix | None:
        """Allocate pages for the virtual tokens of an adapter; None where there is no room now."""
        prefix = self._cache.allocate_prefix(adapter, tokens)
        if prefix is not None:
            self._prefixes[adapter] = prefix
        return prefix

    def unpin(self, adapter: str) -> None:
        """Free the pages of an adapter's virtual tokens."""
        self._cache.free(self._prefixes.pop(adapter).block_table)

    def allocate(self, sequence: Sequence) -> int | None:
        """See `CacheManager`: pages for all the tokens that the sequence may have."""
        block_table = self._cache.allocate(
            sequence.adapter_digest,
            sequence.prompt_ids,
            sequence.most_tokens,
            reusable=sequence.reusable_tokens,
        )
        if block_table is None:
            return None
        sequence.block_table = block_table
        prefix = self._prefixes.get(sequence.adapter_digest or "")
        if prefix is None:
            return block_table.cached_tokens
        return self._cache.copy_prefix(block_table, prefix)

    def publish(self, sequence: Sequence) -> None:
        """See `CacheManager`."""
        table = sequence.block_table
        assert table is not None
        if sequence.computed >= (len(table.keys) + 1) * PAGE_TOKENS:  # one page more is full
            self._cache.publish(table, sequence.ids, sequence.computed)

    def could_share(self, sequence: Sequence, other: Sequence) -> bool:
        """See `CacheManager`; one whose logits are all wanted computes all of its tokens anyway."""
        return sequence.reusable_tokens > sequence.virtual_tokens and self._cache.could_share(
            sequence.prompt_ids, sequence.adapter_digest, other.prompt_ids, other.adapter_digest
        )

    def free(self, sequence: Sequence) -> None:
        """See `CacheManager`."""
        assert sequence.block_table is not None
        self._cache.free(sequence.block_table)
