"""Soft prompts in a running engine's cache: their pages are filled once, a page between two steps.

What changes the cache runs on the engine's own thread (`Commands`); what is here is called on the
thread of whoever loads an adapter. Knows pages and commands; knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from engine.adapters.soft_prompt import SoftPrompt
from engine.errors import Overloaded
from engine.kernels.interface import PAGE_TOKENS
from engine.models.decoder import Decoder
from engine.serving.kv_cache import PagedCache, PinnedPrefix

# Queues a call for the engine's thread; raises `EngineFailure` where that does not run
QueueCall = Callable[[Callable[[], Any]], Future[Any]]


def hold_prefix(
    queue_call: QueueCall, decoder: Decoder, cache: PagedCache, digest: str, prompt: SoftPrompt
) -> PinnedPrefix:
    """Take pages for a soft prompt and fill them; raises `Overloaded` where none are free."""
    prefix: PinnedPrefix | None = queue_call(
        partial(cache.allocate_prefix, digest, prompt.tokens)
    ).result()
    if prefix is None:
        raise Overloaded(f"the cache has no room for the adapter's {prompt.tokens} virtual tokens")
    try:
        for begin in range(0, prompt.tokens, PAGE_TOKENS):
            end = min(begin + PAGE_TOKENS, prompt.tokens)
            queue_call(
                partial(prompt.fill, decoder, cache, prefix.block_table, begin, end)
            ).result()
        queue_call(partial(cache.publish_prefix, prefix)).result()
    except Exception:
        queue_call(partial(cache.free, prefix.block_table))
        raise
    return prefix
