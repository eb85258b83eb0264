"""Soft prompts come and go under running answers, and take room in the cache of keys and values."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.adapters.slots import AdapterSlots
from engine.errors import EngineFailure, Overloaded, PromptTooLong, UnknownId
from engine.kernels.interface import PAGE_TOKENS
from engine.messages import Message
from engine.request import Failed, ScoreRequest, TextDelta, collect
from engine.serving.commands import Commands
from tests.engine.adapters.soft_prompts.conftest import (
    QUESTION,
    Home,
    Start,
    generated,
    page_of,
    pages_in_use,
    text,
)
from tests.helpers import answer, ask, make_bundle
from tests.support.soft_prompts import KINDS


class TestSwap:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_running_stream_keeps_its_virtual_tokens_through_swaps(
        self, start: Start, llama: Home, kind: str
    ) -> None:
        a, b = llama.make(kind, 40), llama.make(kind, 12, seed=1)
        lora = make_bundle(llama.root, llama.base)
        engine = start(llama)
        slots = AdapterSlots(engine, llama.base, llama.root)
        options: dict[str, Any] = {"max_new_tokens": 60, "ignore_eos": True}
        slots.activate(a)
        with slots.pin_live() as version:
            expected = answer(engine, QUESTION, adapter=version, **options).text
            stream = engine.submit(ask(QUESTION, adapter=version, **options))
            assert isinstance(next(iter(stream)), TextDelta)
            for other in (b, lora, None, b):
                slots.activate(other)
            assert collect(stream).text == expected
        assert engine.adapters == {b}
        slots.activate(None)
        assert engine.adapters == set()

    def test_a_freed_adapters_pages_come_back_and_it_can_be_loaded_again(
        self, start: Start, llama: Home
    ) -> None:
        digest = llama.make("prompt", 70)
        engine, peer = start(llama), llama.peer(digest)
        for _ in range(3):
            llama.load(engine, digest)
            assert pages_in_use(engine) == 3  # 70 tokens in pages of 32
            assert text(engine, digest) == generated(peer)
            engine.unload_adapter(digest)
            assert pages_in_use(engine) == 0
        with pytest.raises(UnknownId):
            engine.submit(ask(QUESTION, adapter=digest))

    def test_many_who_load_one_at_once_all_get_it_and_it_is_held_once(
        self, start: Start, llama: Home
    ) -> None:
        digest = llama.make("prefix", 45)
        engine, expected = start(llama), generated(llama.peer(digest))
        slots = AdapterSlots(engine, llama.base, llama.root)
        everybody = threading.Barrier(6)

        def held(_: int) -> str:
            everybody.wait()
            with slots.hold(digest):
                said = text(engine, digest)
                everybody.wait()
            return said

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(held, range(6))) == [expected] * 6
        assert engine.adapters == set()
        assert pages_in_use(engine) == 0


class TestRoom:
    def test_virtual_tokens_count_in_the_budget_of_keys_and_values(
        self, start: Start, llama: Home
    ) -> None:
        digest = llama.make("prefix", 40)
        engine = start(llama, kv_cache_bytes=10 * page_of(llama))
        assert engine.context_tokens == 10 * PAGE_TOKENS
        llama.load(engine, digest)
        assert engine.context_tokens == 8 * PAGE_TOKENS
        # What an answer fills at most: the context without the 40 tokens before its prompt
        end = answer(engine, "", adapter=digest, max_new_tokens=1000, ignore_eos=True)
        assert end.prompt_tokens + end.completion_tokens == 8 * PAGE_TOKENS - 40
        long = "word " * 400
        with pytest.raises(PromptTooLong, match=f"the context holds {8 * PAGE_TOKENS - 40}"):
            engine.submit(ask(long, adapter=digest))
        with pytest.raises(PromptTooLong):
            engine.score([ScoreRequest((Message("user", long),), "x", digest)])

    def test_one_that_finds_no_room_is_refused_and_nothing_has_changed(
        self, start: Start, llama: Home
    ) -> None:
        digest, large = llama.make("prompt", 20), llama.make("prompt", 200)
        engine = start(llama, kv_cache_bytes=6 * page_of(llama))
        slots = AdapterSlots(engine, llama.base, llama.root)
        slots.activate(digest)
        before = text(engine, digest)
        with pytest.raises(Overloaded, match="no room for the adapter's 200 virtual tokens"):
            slots.activate(large)
        assert slots.live == digest
        assert engine.adapters == {digest}
        assert text(engine, digest) == before

    def test_an_answer_whose_room_an_adapter_took_is_told_so_and_does_not_wait_for_ever(
        self, start: Start, llama: Home
    ) -> None:
        engine = start(llama, kv_cache_bytes=6 * page_of(llama))
        request = ask(QUESTION, max_new_tokens=1000)
        real, digest = engine.loop.submit, llama.make("prompt", 40)

        def queued_late(sequences: Any) -> None:  # their room was found before the load
            engine.loop.submit = real  # type: ignore[method-assign]
            llama.load(engine, digest)
            real(sequences)

        engine.loop.submit = queued_late  # type: ignore[method-assign]
        (*_, end) = engine.submit(request)
        assert isinstance(end, Failed)
        assert isinstance(end.error, Overloaded)
        assert text(engine, None)


def test_a_call_that_never_ends_does_not_keep_its_caller_waiting() -> None:
    """The watchdog fails what waits while the call still runs; its late result counts no more."""
    commands = Commands()
    future = commands.put(lambda: commands.fail(EngineFailure("the engine hangs")))
    later = commands.put(lambda: None)
    commands.run_one()
    for each in (future, later):
        with pytest.raises(EngineFailure, match="hangs"):
            each.result(timeout=0)
    assert not commands
