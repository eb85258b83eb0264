"""Who computes what in the next step, told without a model: works are fake, so is the clock."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.interface import PAGE_TOKENS, Heads
from engine.serving.block_manager import BlockManager
from engine.serving.kv_cache import PagedCache
from engine.serving.scheduler import (
    MAX_CHUNK_SECONDS,
    MAX_CHUNK_TOKENS,
    MIN_CHUNK_TOKENS,
    Scheduler,
)
from engine.serving.sequence import ScheduledChunk, Sequence, SequenceStatus
from engine.serving.task import Task

TOKEN_SECONDS, STEP_SECONDS = 0.001, 0.1  # of one more token of a prompt, of one more step


@dataclass
class FakeTask:
    """What the scheduler knows of an answer."""

    prompt_ids: tuple[int, ...]
    max_tokens: int = 100
    ids: list[int] = field(default_factory=list)
    ended: bool = False
    cached_prompt_tokens: int = 0
    admitted_at: float | None = None

    @property
    def reusable_tokens(self) -> int:
        return len(self.prompt_ids) - 1

    def wanted(self, begin: int, end: int) -> range:
        return range(end - (end == len(self.prompt_ids) + len(self.ids)), end)


@dataclass
class FakeAdapter:
    """An adapter that needs no room."""

    digest: str
    virtual_tokens: int = 0

    def close(self) -> None:
        """Nothing to free."""


class Bench:
    """A scheduler, and a machine that takes `TOKEN_SECONDS` a token of a prompt."""

    def __init__(self, *, max_rows: int = 8, pages: int = 1000, share: bool = True) -> None:
        heads = Heads(query=1, kv=1, dim=1, rotated=0)
        self.cache = PagedCache(
            1, heads, page_count=pages, dtype=torch.float16, device="cpu", share=share
        )
        self.scheduler = Scheduler(BlockManager(self.cache), max_rows=max_rows)
        self.prompts = 0

    def add(
        self,
        tokens: int | tuple[int, ...],
        *,
        user: str = "",
        answer: int = 100,
        adapter: str | None = None,
        whole_prompt: bool = False,
    ) -> Sequence:
        """Queue a prompt, unlike every other where only its length is given."""
        self.prompts += 1
        ids = tokens if isinstance(tokens, tuple) else (10_000 + self.prompts,) * tokens
        loaded = None if adapter is None else FakeAdapter(adapter)
        sequence = Sequence(cast(Task, FakeTask(ids, answer)), loaded, user, whole_prompt)
        self.scheduler.waiting.append(sequence)
        return sequence

    def step(self) -> list[ScheduledChunk]:
        """One step; every sequence that is computed gets a token."""
        chunks = self.scheduler.schedule()
        if chunks:
            self.scheduler.complete(chunks, seconds_of(chunks))
        for chunk in chunks:
            if chunk.wanted:
                chunk.sequence.task.ids.append(1)
                if len(chunk.sequence.task.ids) >= chunk.sequence.task.max_tokens:
                    end(chunk.sequence)
        return chunks

    def know_the_pace(self) -> None:
        """Run one answer, so that both costs are measured."""
        first = self.add(100, answer=3)
        while first.status is not SequenceStatus.ENDED:
            self.step()
        self.step()
        assert self.scheduler.idle


def end(sequence: Sequence) -> None:
    cast(Any, sequence.task).ended = True


def count(chunk: ScheduledChunk) -> int:
    return chunk.end - chunk.begin


def seconds_of(chunks: list[ScheduledChunk]) -> float:
    """What the fake machine takes: a fixed part where anybody decodes, and each prompt's tokens."""
    prompt_tokens = sum(count(s) for s in chunks if count(s) > 1)
    decodes = any(count(s) == 1 for s in chunks)
    return STEP_SECONDS * decodes + TOKEN_SECONDS * prompt_tokens


class TestChunks:
    def test_answers_come_first_and_none_is_left_out(self) -> None:
        bench = Bench()
        bench.know_the_pace()
        answers = [bench.add(20), bench.add(20)]
        bench.step()
        newcomer = bench.add(1000)
        chunks = bench.step()
        assert [s.sequence for s in chunks] == [*answers, newcomer]
        assert [count(s) for s in chunks[:2]] == [1, 1]

    def test_a_long_prompt_beside_an_answer_at_most_doubles_each_step(self) -> None:
        bench = Bench()
        bench.know_the_pace()
        answer = bench.add(20, answer=1000)
        bench.step()
        long = bench.add(3000)
        steps = 0
        while long.computed < 3000:
            chunks = bench.step()
            assert chunks[0].sequence is answer, "the running answer stalls"
            assert seconds_of(chunks) <= 2 * STEP_SECONDS * 1.001
            steps += 1
        assert len(answer.task.ids) == 1 + steps
        assert steps == math.ceil(3000 / (STEP_SECONDS / TOKEN_SECONDS)), "chunks are too small"

    def test_a_prompt_that_is_alone_is_cut_so_that_a_newcomer_is_seen_soon(self) -> None:
        bench = Bench()
        bench.know_the_pace()
        bench.add(2000)
        [chunk] = bench.step()
        assert count(chunk) == min(MAX_CHUNK_TOKENS, round(MAX_CHUNK_SECONDS / TOKEN_SECONDS))
        assert [s.end for s in bench.step()] == [1000]

    def test_the_first_prompt_of_unknown_cost_is_cut_too(self) -> None:
        bench = Bench()
        bench.add(2000)
        assert [count(s) for s in bench.step()] == [MAX_CHUNK_TOKENS]

    def test_the_pace_of_answers_is_measured_before_a_prompt_is_computed_beside_them(self) -> None:
        bench = Bench()
        answer = bench.add(20)
        bench.step()
        newcomer = bench.add(1000)
        assert [s.sequence for s in bench.step()] == [answer]
        assert [count(s) for s in bench.step()] == [1, 100]
        assert newcomer.computed == 100

    def test_on_a_slow_machine_prompts_advance_all_the_same(self) -> None:
        bench = Bench()
        bench.know_the_pace()
        bench.add(20, answer=1000)
        bench.step()
        bench.add(1000)
        for _ in range(40):
            chunks = bench.scheduler.schedule()
            bench.scheduler.complete(chunks, STEP_SECONDS + 50 * count(chunks[1]))
            chunks[0].sequence.task.ids.append(1)
        assert count(chunks[1]) == MIN_CHUNK_TOKENS

    def test_several_short_prompts_share_one_step_and_are_timed_as_what_they_are(self) -> None:
        bench = Bench()
        bench.know_the_pace()
        prompts = [bench.add(30) for _ in range(4)]
        chunks = bench.step()
        assert [s.sequence for s in chunks] == prompts
        assert bench.scheduler.expected_seconds(chunks) == pytest.approx(
            STEP_SECONDS + 120 * TOKEN_SECONDS
        )

    def test_a_prompt_that_cannot_be_cut_is_computed_at_once(self) -> None:
        bench = Bench()
        bench.know_the_pace()
        bench.add(20, answer=1000)
        bench.step()
        bench.add(2000, whole_prompt=True)
        chunks = bench.step()
        assert [count(s) for s in chunks] == [1, 2000]
        assert bench.scheduler.expected_seconds(chunks) == pytest.approx(
            STEP_SECONDS + 2000 * TOKEN_SECONDS
        )

    def test_a_prompt_that_is_cached_but_for_its_last_token_decodes_at_once(self) -> None:
        bench = Bench()
        bench.know_the_pace()
        ids = tuple(range(2 * PAGE_TOKENS + 1))
        bench.add(ids, answer=1)
        bench.step()
        again = bench.add(ids)
        [chunk] = bench.step()
        assert (chunk.sequence, chunk.begin, chunk.end, *chunk.wanted) == (again, 64, 65, 0)
        assert len(again.task.ids) == 1
        assert again.task.cached_prompt_tokens == 64


class TestRows:
    def test_no_more_rows_than_allowed_and_the_next_joins_when_one_leaves(self) -> None:
        bench = Bench(max_rows=2)
        first, second, third = bench.add(20), bench.add(20), bench.add(20)
        assert [s.sequence for s in bench.step()] == [first, second]
        bench.step()
        end(first)
        assert [s.sequence for s in bench.step()] == [second, third]

    def test_the_ended_leave_within_one_step_with_their_pages(self) -> None:
        bench = Bench()
        running, waiting = bench.add(20), bench.add(20)
        bench.step()
        end(running)
        end(waiting)
        assert bench.step() == []
        assert bench.scheduler.idle
        assert bench.cache.used_pages == 0

    def test_who_waits_and_ends_leaves_the_queue(self) -> None:
        bench = Bench(max_rows=1)
        bench.add(20)
        bench.step()
        waiting = bench.add(20)
        end(waiting)
        bench.step()
        assert not bench.scheduler.waiting

    def test_a_sequence_ended_by_another_thread_while_the_ended_leave_loses_no_page(self) -> None:
        bench = Bench()
        first, second = bench.add(20), bench.add(20)
        bench.step()
        end(first)
        release = bench.cache.free

        def end_the_other(block_table: Any) -> None:
            end(second)  # the watchdog does so, from its own thread
            release(block_table)

        bench.cache.free = end_the_other  # type: ignore[method-assign]
        bench.step()
        bench.step()
        assert bench.scheduler.idle
        assert bench.cache.used_pages == 0

    def test_who_needs_more_room_than_there_is_waits_and_is_not_overtaken(self) -> None:
        bench = Bench(pages=8)
        running = bench.add(20, answer=100)  # four pages
        bench.step()
        big, small = bench.add(20, answer=200), bench.add(20, answer=10)
        for _ in range(5):
            assert [s.sequence for s in bench.step()] == [running]
        end(running)
        assert [s.sequence for s in bench.step()] == [big, small]


class TestFairness:
    def test_of_the_waiting_the_user_with_the_fewest_running_is_next(self) -> None:
        bench = Bench(max_rows=4)
        bench.know_the_pace()
        busy = [bench.add(20, user="busy") for _ in range(6)]
        bench.step()
        late = bench.add(20, user="late")
        end(busy[0])
        assert bench.step()[-1].sequence is late
        end(busy[1])
        assert bench.step()[-1].sequence is busy[4]

    def test_users_take_turns_and_each_ones_requests_stay_in_order(self) -> None:
        bench = Bench(max_rows=6)
        made = {user: [bench.add(20, user=user) for _ in range(4)] for user in ("a", "b", "c")}
        admitted = [chunk.sequence for chunk in bench.step()]
        for user, sequences in made.items():
            assert [s for s in admitted if s.user == user] == sequences[:2]

    def test_one_user_alone_is_served_in_order_of_arrival(self) -> None:
        bench = Bench(max_rows=1)
        made = [bench.add(20, answer=1) for _ in range(5)]
        served = [bench.step()[0].sequence for _ in made]
        assert served == made


class TestCrowds:
    def test_a_short_prompt_does_not_stand_behind_a_long_one(self) -> None:
        bench = Bench()
        bench.add(10 * MAX_CHUNK_TOKENS)
        short = bench.add(20)
        chunks = bench.step()
        assert short in [chunk.sequence for chunk in chunks]


class TestCommonBeginnings:
    IDS = tuple(range(3 * PAGE_TOKENS + 1))

    def test_of_samples_of_one_prompt_the_first_computes_it_and_the_others_find_it(self) -> None:
        bench = Bench()
        samples = [bench.add(self.IDS) for _ in range(4)]
        assert [s.sequence for s in bench.step()] == samples[:1]
        bench.step()
        chunks = bench.step()
        assert [s.sequence for s in chunks] == samples
        assert [s.task.cached_prompt_tokens for s in samples] == [0, 96, 96, 96]
        assert bench.cache.used_pages == 3 + 4 * 4  # the prompt's full pages once, the rest each

    def test_while_they_wait_others_go_on(self) -> None:
        bench = Bench()
        first, alike, other = bench.add(self.IDS), bench.add(self.IDS), bench.add(50)
        assert [s.sequence for s in bench.step()] == [first, other]
        assert list(bench.scheduler.waiting) == [alike]

    def test_of_two_adapters_neither_waits_for_the_other(self) -> None:
        bench = Bench()
        both = [bench.add(self.IDS, adapter=adapter) for adapter in ("a", "b")]
        assert [s.sequence for s in bench.step()] == both

    def test_without_a_prefix_cache_nobody_waits(self) -> None:
        bench = Bench(share=False)
        both = [bench.add(self.IDS) for _ in range(2)]
        assert [s.sequence for s in bench.step()] == both

    def test_if_the_first_is_cancelled_the_next_computes_the_rest(self) -> None:
        bench = Bench()
        ids = tuple(range(1000))
        first, second = bench.add(ids), bench.add(ids)
        bench.step()
        end(first)
        [chunk] = bench.step()
        assert chunk.sequence is second
        assert second.task.cached_prompt_tokens == MAX_CHUNK_TOKENS // 2  # as the other waited


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 300),  # tokens of the prompt
            st.integers(1, 40),  # of the answer
            st.sampled_from("abc"),  # user
            st.sampled_from([None, "x"]),  # adapter
            st.booleans(),  # begins like others
            st.integers(0, 12),  # steps until it comes
            st.integers(0, 60),  # steps until it is cancelled
        ),
        max_size=12,
    )
)
def test_whoever_comes_and_goes_everybody_is_served_and_nothing_leaks(
    comers: list[tuple[int, int, str, str | None, bool, int, int]],
) -> None:
    bench = Bench(max_rows=3, pages=24)
    made: dict[int, Sequence] = {}
    for number in range(2000):
        for index, (tokens, answer, user, adapter, alike, comes, goes) in enumerate(comers):
            if comes == number:
                ids = (5,) * tokens if alike else (50 + index,) * tokens
                made[index] = bench.add(ids, user=user, answer=answer, adapter=adapter)
            if goes == number and index in made and goes % 2:
                end(made[index])
        chunks = bench.step()
        assert len(bench.scheduler.running) <= 3
        assert len({id(chunk.sequence) for chunk in chunks}) == len(chunks)
        if bench.scheduler.idle and number > 12:
            break
    assert bench.scheduler.idle, "somebody waits for ever"
    assert len(made) == len(comers)
    assert all(sequence.task.ended for sequence in made.values())
    assert bench.cache.used_pages == 0
