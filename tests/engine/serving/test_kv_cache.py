"""Pages are shared by those who may share them, written by one alone, and never lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.kernels.interface import PAGE_TOKENS, Heads
from engine.serving.kv_cache import BlockTable, PagedCache, page_bytes, pages_for

HEADS = Heads(query=2, kv=1, dim=2, rotated=2)


def cache_of(pages: int, *, share: bool = True, most_idle_pages: int | None = None) -> PagedCache:
    return PagedCache(
        1,
        HEADS,
        page_count=pages,
        dtype=torch.float32,
        device="cpu",
        share=share,
        most_idle_pages=most_idle_pages,
    )


def prompt(pages: int, seed: int = 0) -> tuple[int, ...]:
    """Tokens that fill so many pages and one token of the next."""
    return tuple(1000 * seed + i for i in range(pages * PAGE_TOKENS + 1))


def allocate(
    cache: PagedCache, ids: Sequence[int], adapter: str | None = None, tokens: int | None = None
) -> BlockTable:
    """What an answer to the prompt `ids` gets, at least its pages."""
    made = cache.allocate(
        adapter, ids, len(ids) if tokens is None else tokens, reusable=len(ids) - 1
    )
    assert made is not None
    return made


def publish(cache: PagedCache, made: BlockTable, ids: Sequence[int]) -> None:
    cache.publish(made, lambda begin, end: ids[begin:end], len(ids))


def keep(cache: PagedCache, ids: Sequence[int], adapter: str | None = None) -> list[int]:
    """Compute a prompt, let go of it; the pages that stay known."""
    made = allocate(cache, ids, adapter)
    publish(cache, made, ids)
    pages = made.pages[: len(ids) // PAGE_TOKENS]
    cache.free(made)
    return pages


def shared(cache: PagedCache, ids: Sequence[int], adapter: str | None = None) -> int:
    """How many pages of a prompt the cache has; nothing stays leased."""
    made = allocate(cache, ids, adapter)
    cache.free(made)
    return made.shared


class TestSharing:
    def test_a_prompt_that_begins_alike_gets_the_same_pages(self) -> None:
        cache, ids = cache_of(16), prompt(3)
        first = allocate(cache, ids)
        publish(cache, first, ids)
        second = allocate(cache, (*ids[:70], *prompt(3, seed=9)))
        assert second.pages[:2] == first.pages[:2]
        assert (second.shared, second.cached_tokens) == (2, 64)
        assert not set(second.pages[2:]) & set(first.pages)

    def test_pages_are_shared_once_they_are_published_and_stay_after_their_user_left(self) -> None:
        cache, ids = cache_of(16), prompt(3)
        made = allocate(cache, ids)
        assert shared(cache, ids) == 0
        cache.publish(made, lambda begin, end: ids[begin:end], 2 * PAGE_TOKENS - 1)
        assert shared(cache, ids) == 1, "a page that is not full was shared"
        publish(cache, made, ids)
        cache.free(made)
        assert (cache.used_pages, cache.idle_pages) == (0, 3)
        assert shared(cache, ids) == 3

    def test_the_last_tokens_logits_are_wanted_so_its_page_is_computed_anew(self) -> None:
        cache, ids = cache_of(16), prompt(3)[:-1]  # exactly three pages
        keep(cache, ids)
        assert shared(cache, ids) == 2

    def test_every_adapter_has_pages_of_its_own(self) -> None:
        cache, ids = cache_of(16), prompt(2)
        keep(cache, ids, "sha256:a")
        assert shared(cache, ids, "sha256:a") == 2
        assert shared(cache, ids, "sha256:b") == 0
        assert shared(cache, ids, None) == 0

    def test_a_page_belongs_to_all_that_came_before_it(self) -> None:
        cache, ids = cache_of(16), prompt(2)
        keep(cache, ids)
        same_second_page = (*range(5000, 5000 + PAGE_TOKENS), *ids[PAGE_TOKENS:])
        assert shared(cache, same_second_page) == 0

    def test_two_that_computed_the_same_each_give_back_their_own_pages(self) -> None:
        cache, ids = cache_of(16), prompt(2)
        one, other = allocate(cache, ids), allocate(cache, ids)
        publish(cache, one, ids)
        publish(cache, other, ids)
        cache.free(other)
        assert (cache.used_pages, cache.idle_pages) == (3, 0), "the copy is free at once"
        cache.free(one)
        assert (cache.used_pages, cache.idle_pages) == (0, 2)

    def test_a_cache_that_does_not_share_keeps_nothing(self) -> None:
        cache, ids = cache_of(16, share=False), prompt(3)
        keep(cache, ids)
        assert (cache.used_pages, cache.idle_pages) == (0, 0)
        assert shared(cache, ids) == 0
        assert not cache.could_share(ids, None, ids, None)

    def test_prompts_are_alike_while_a_page_of_theirs_is_not_known(self) -> None:
        cache, ids = cache_of(16), prompt(2)
        other = (*ids[:40], *prompt(2, seed=7))
        assert cache.could_share(ids, None, ids, None)
        assert cache.could_share(ids, None, other, None)
        assert not cache.could_share(ids, "a", ids, "b")
        assert not cache.could_share(ids[:32], None, ids[:32], None), (
            "the last token is not reusable"
        )
        assert not cache.could_share(ids, None, prompt(2, seed=7), None)
        keep(cache, other)
        assert not cache.could_share(ids, None, other, None), "their common page is there already"


class TestRoom:
    def test_no_room_is_said_and_takes_nothing(self) -> None:
        cache, ids = cache_of(4), prompt(2)
        made = allocate(cache, ids)
        publish(cache, made, ids)
        assert cache.allocate(None, ids, 4 * PAGE_TOKENS + 1, reusable=len(ids) - 1) is None
        assert cache.used_pages == 3
        cache.free(made)
        assert (cache.used_pages, cache.idle_pages) == (0, 2)

    def test_unused_pages_make_room_and_the_whole_cache_can_be_leased(self) -> None:
        cache = cache_of(4)
        keep(cache, prompt(3))
        made = allocate(cache, prompt(1, seed=5), tokens=4 * PAGE_TOKENS)
        assert sorted(made.pages) == [0, 1, 2, 3]
        assert (cache.used_pages, cache.idle_pages) == (4, 0)

    def test_the_least_recently_used_prompt_goes_first(self) -> None:
        cache, a, b, c = cache_of(7), prompt(2, 1), prompt(2, 2), prompt(2, 3)
        for ids in (a, b, c):
            keep(cache, ids)
        assert shared(cache, a) == 2  # used again: b is the oldest now
        hungry = allocate(cache, prompt(1, 4), tokens=3 * PAGE_TOKENS)  # the free page and b's two
        assert cache.idle_pages == 4
        cache.free(hungry)
        assert [shared(cache, ids) for ids in (a, c, b)] == [2, 2, 0]

    def test_of_one_prompt_the_end_goes_first(self) -> None:
        cache, ids = cache_of(4), prompt(3)
        keep(cache, ids)
        hungry = allocate(cache, prompt(1, 4), tokens=3 * PAGE_TOKENS)
        cache.free(hungry)
        assert shared(cache, ids) == 1

    def test_no_more_pages_are_written_to_than_may_be_idle_and_are_in_use(self) -> None:
        cache = cache_of(100, most_idle_pages=8)
        written: set[int] = set()
        for seed in range(30):  # conversations that nobody goes on with, of three pages and a part
            written |= set(keep(cache, prompt(3, seed)))
        assert cache.idle_pages <= 8 + 3
        assert len(written) <= 8 + 2 * 4
        assert [shared(cache, prompt(3, seed)) for seed in (28, 29)] == [3, 3]

    def test_a_conversation_that_goes_on_is_kept_while_others_come_and_go(self) -> None:
        cache, own = cache_of(100, most_idle_pages=8), prompt(2, seed=99)
        for seed in range(30):
            keep(cache, own)
            keep(cache, prompt(2, seed))
            assert shared(cache, own) == 2

    def test_a_page_in_use_is_never_taken(self) -> None:
        cache, ids = cache_of(4), prompt(3)
        keep(cache, ids)
        made = allocate(cache, ids)
        assert made.shared == 3
        assert cache.allocate(None, prompt(0, 4), 1, reusable=0) is None

    def test_releasing_twice_is_harmless(self) -> None:
        cache = cache_of(4)
        made = allocate(cache, prompt(2))
        cache.free(made)
        cache.free(made)
        assert cache.used_pages == 0
        assert sorted(allocate(cache, (), tokens=4 * PAGE_TOKENS).pages) == [0, 1, 2, 3]

    @pytest.mark.parametrize(("tokens", "pages"), [(0, 0), (1, 1), (32, 1), (33, 2), (64, 2)])
    def test_pages_are_counted_by_their_beginnings(self, tokens: int, pages: int) -> None:
        assert pages_for(tokens) == pages

    def test_bytes_of_a_page_are_those_of_all_layers_keys_and_values(self) -> None:
        cache = PagedCache(3, HEADS, page_count=5, dtype=torch.float16, device="cpu")
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        assert held == 5 * page_bytes(3, HEADS, torch.float16)

    def test_slots_number_the_tokens_of_all_pages(self) -> None:
        made = BlockTable([5, 2], [], 0, None)
        assert made.slots(30, 34).tolist() == [5 * 32 + 30, 5 * 32 + 31, 2 * 32, 2 * 32 + 1]


class PagesAreNeverLost(RuleBasedStateMachine):
    """Any sequence of allocations, publications and releases, over few pages and few prompts."""

    PAGES = 6

    def __init__(self) -> None:
        super().__init__()
        self.cache = cache_of(self.PAGES)
        self.tables: list[tuple[BlockTable, tuple[int, ...]]] = []
        self.content: dict[int, tuple[str | None, tuple[int, ...]]] = {}

    @rule(
        branch=st.sampled_from([(0, 0, 0), (0, 0, 1), (0, 1, 1), (2, 0, 0)]),
        length=st.integers(1, 3 * PAGE_TOKENS),
        answer=st.integers(1, 3 * PAGE_TOKENS),
        adapter=st.sampled_from([None, "a"]),
    )
    def allocate(
        self, branch: tuple[int, int, int], length: int, answer: int, adapter: str | None
    ) -> None:
        whole = tuple(page for page in branch for _ in range(PAGE_TOKENS)) + (7,) * answer
        made = self.cache.allocate(adapter, whole[:length], length + answer, reusable=length - 1)
        if made is None:
            in_use = {page for held, _ in self.tables for page in held.pages}
            assert len(in_use) + pages_for(length + answer) > self.PAGES, "there was room"
            return
        assert len(made.pages) == pages_for(length + answer)
        assert made.cached_tokens < length
        for index, page in enumerate(made.pages[: made.shared]):
            assert self.content[page] == (adapter, whole[: (index + 1) * PAGE_TOKENS])
        for page in made.pages[made.shared :]:
            self.content.pop(page, None)  # this sequence writes it now
        self.tables.append((made, (whole + (7,) * length)[: length + answer]))

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        made, ids = data.draw(st.sampled_from(self.tables))
        computed = data.draw(st.integers(made.cached_tokens, len(ids)))
        for index in range(made.shared, computed // PAGE_TOKENS):
            self.content[made.pages[index]] = (made.adapter, ids[: (index + 1) * PAGE_TOKENS])
        self.cache.publish(made, lambda begin, end: ids[begin:end], computed)

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.tables) - 1))
        made, _ = self.tables.pop(index)
        self.cache.free(made)

    @invariant()
    def every_page_has_at_most_one_writer(self) -> None:
        users = Counter(page for made, _ in self.tables for page in made.pages)
        writers = Counter(page for made, _ in self.tables for page in made.pages[made.shared :])
        assert max(writers.values(), default=0) <= 1
        for made, _ in self.tables:
            unpublished = made.pages[len(made.keys) :]
            assert all(users[page] == 1 for page in unpublished), "somebody reads a page too early"

    @invariant()
    def every_page_is_used_kept_or_free(self) -> None:
        used = {page for made, _ in self.tables for page in made.pages}
        assert self.cache.used_pages == len(used)

    def teardown(self) -> None:
        for made, _ in self.tables:
            self.cache.free(made)
        assert self.cache.used_pages == 0
        everything = allocate(self.cache, (), tokens=self.PAGES * PAGE_TOKENS)
        assert sorted(everything.pages) == list(range(self.PAGES))


TestPagesAreNeverLost = PagesAreNeverLost.TestCase
TestPagesAreNeverLost.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
