"""The engine's loop over our decoder: streams that leave, failures, and adapters meanwhile."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from engine import time_slices
from engine.adapters import lora, lora_matrices
from engine.adapters.slots import AdapterSlots
from engine.errors import EngineFailure, PromptTooLong
from engine.messages import Message
from engine.models.catalogue import BaseModel, linear_shapes
from engine.quantization import Quantization
from engine.request import Failed, Finished, ScoreRequest
from tests.engine.conftest import StartFast
from tests.helpers import answer, ask
from tests.support.engines import DRAWN, LONG, STORY, Adapters, load_both, nothing_is_held
from tests.support.waiting import wait_until

QUESTIONS = (
    "Tell me about the river and the sea, and what the old sailor said to the cat on the stone.",
    "sea",
    "Hello!",
    "What is the answer to this question?",
    "你好 👍",
    "Why?",
    "Bread needs flour, water, salt and time. How much time?",
)


class TestLeaving:
    def test_a_cancelled_answer_is_out_within_one_step_with_its_pages(
        self, start_fast: StartFast
    ) -> None:
        engine = start_fast(prefix_cache=False)
        steps: list[tuple[bool, int, int]] = []
        stream = engine.submit(ask("Why?", **LONG))
        next(iter(stream))
        real = engine.loop.step

        def watched() -> None:
            asked = stream.cancelled
            real()
            steps.append(
                (asked, len(engine.loop.scheduler.running), engine.runner.cache.used_pages)
            )

        engine.loop.step = watched  # type: ignore[method-assign]
        wait_until(lambda: len(steps) > 3)
        stream.cancel()
        list(stream)
        wait_until(lambda: engine.active_streams == 0)
        wait_until(lambda: steps[-1][1:] == (0, 0))
        assert all(step[1:] == (0, 0) for step in steps if step[0])

    def test_50_cancelled_answers_leave_nothing_behind(
        self, start_fast: StartFast, quantization: Quantization
    ) -> None:
        engine = start_fast(quantization, max_rows=8)
        expected = answer(engine, "Why?")
        streams = [engine.submit(ask(f"{STORY} {number}", **LONG)) for number in range(50)]
        for number, stream in enumerate(streams):  # some speak, the others wait or begin
            if number < 8:
                next(iter(stream))
            stream.cancel()
        ends = [list(stream)[-1] for stream in streams]
        assert all(isinstance(end, Finished) and end.reason == "cancelled" for end in ends)
        assert nothing_is_held(engine)
        assert answer(engine, "Why?") == expected

    def test_late_answers_leave_nothing_behind(self, start_fast: StartFast) -> None:
        engine = start_fast(max_rows=2)
        late = replace(ask(STORY, **LONG), timeout_seconds=0.05)
        ends = [list(stream)[-1] for stream in engine.submit_many([late] * 6)]
        assert all(isinstance(end, Failed) for end in ends)
        assert nothing_is_held(engine)


class TestFailures:
    def test_a_failing_step_frees_its_pages_and_spares_those_who_wait(
        self, start_fast: StartFast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = start_fast(max_rows=2)
        expected = answer(engine, "sea")
        real, calls = engine.runner.run, itertools.count()

        def fails_once(chunks: list[Any]) -> Any:
            if next(calls) == 4:
                raise RuntimeError("out of luck")
            return real(chunks)

        monkeypatch.setattr(engine.runner, "run", fails_once)
        streams = engine.submit_many([ask("Why?", **LONG), ask("Hi", **LONG), ask("sea")])
        ends = [list(stream)[-1] for stream in streams]
        assert [isinstance(end, Failed) for end in ends] == [True, True, False]
        assert ends[2] == expected
        assert nothing_is_held(engine)
        assert answer(engine, "sea") == expected

    def test_what_a_failed_step_would_have_shared_is_computed_anew(
        self, start_fast: StartFast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = start_fast()
        real = engine.runner.run

        def fails_after_computing(chunks: list[Any]) -> Any:
            real(chunks)
            raise RuntimeError("out of luck")

        monkeypatch.setattr(engine.runner, "run", fails_after_computing)
        assert isinstance(list(engine.submit(ask(STORY)))[-1], Failed)
        monkeypatch.undo()
        assert answer(engine, STORY).cached_prompt_tokens == 0

    def test_a_plan_that_fails_ends_everybody_and_the_next_request_works(
        self, start_fast: StartFast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = start_fast()

        def fail() -> Any:
            raise RuntimeError("no plan")

        monkeypatch.setattr(engine.loop.scheduler, "_next_prompt", lambda _: fail())
        with pytest.raises(EngineFailure, match="no plan"):
            answer(engine, "Why?")
        monkeypatch.undo()
        assert answer(engine, "Why?").text
        assert nothing_is_held(engine)

    def test_a_row_whose_logits_cannot_be_drawn_from_fails_alone(
        self, start_fast: StartFast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = start_fast()
        expected = [answer(engine, q, max_new_tokens=40) for q in QUESTIONS[:3]]
        real = engine.runner.run

        def nan_where_drawn(chunks: list[Any]) -> Any:
            output = real(chunks)
            row = 0
            for chunk in chunks:
                if chunk.wanted and chunk.sequence.user == "unlucky":
                    output.logits[row] = float("nan")
                row += len(chunk.wanted)
            return output

        monkeypatch.setattr(engine.runner, "run", nan_where_drawn)
        requests = [ask(q, max_new_tokens=40) for q in QUESTIONS[:3]]
        streams = engine.submit_many([*requests, replace(ask("Why?", **DRAWN), user="unlucky")])
        *good, bad = [list(stream)[-1] for stream in streams]
        assert good == expected
        assert isinstance(bad, Failed)
        assert isinstance(bad.error, EngineFailure)
        assert nothing_is_held(engine)

    def test_text_that_cannot_be_decoded_ends_its_stream_alone(
        self, start_fast: StartFast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = start_fast()
        expected = answer(engine, "Why?", max_new_tokens=40)
        real = engine.loop.submit

        def with_broken_text(sequences: Sequence[Any]) -> None:
            for sequence in sequences:
                if sequence.task.max_tokens == 9:
                    monkeypatch.setattr(sequence.task._text, "finish", lambda: 1 // 0)
            real(sequences)

        monkeypatch.setattr(engine.loop, "submit", with_broken_text)
        broken = engine.submit(ask("Hi", max_new_tokens=9, ignore_eos=True))
        good = engine.submit(ask("Why?", max_new_tokens=40))
        *_, end = broken
        assert isinstance(end, Failed)
        assert "ZeroDivisionError" in str(end.error)
        assert list(good)[-1] == expected
        assert nothing_is_held(engine)

    def test_scores_are_queued_all_or_none(self, start_fast: StartFast) -> None:
        engine = start_fast()
        good = ScoreRequest((Message("user", "Hi"),), "The sea.")
        with pytest.raises(PromptTooLong):
            engine.score([good, replace(good, completion="~" * engine.context_tokens)])
        assert engine.active_streams == 0


class TestAdaptersAndThreads:
    def test_closing_while_an_adapter_loads_harms_neither(
        self, start_fast: StartFast, adapters: Adapters
    ) -> None:
        engine = start_fast()
        with ThreadPoolExecutor(2) as pool:
            loads = [pool.submit(load_both, engine, adapters) for _ in range(2)]
            engine.close()
            for loaded in loads:
                loaded.result(timeout=30)
        assert not engine.alive

    def test_a_running_stream_gets_a_token_after_each_piece_of_an_activation(
        self,
        start_fast: StartFast,
        adapters: Adapters,
        tiny_base: BaseModel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        engine = start_fast("int4")
        slots = AdapterSlots(engine, tiny_base, adapters.root)
        stream = engine.submit(ask("Why?", **LONG))
        next(iter(stream))
        real, steps = engine.runner.run, [0]
        seen = []  # how many steps there were whenever the work in the background read its clock

        def counted(*arguments: Any) -> Any:
            steps[0] += 1
            return real(*arguments)

        def read_clock() -> float:
            wait_until(
                lambda: len(engine.loop.time_slices._queue) == 2
            )  # the next step waits for this piece
            seen.append(steps[0])
            return float(len(seen))  # a second is long: every breath is due

        monkeypatch.setattr(time_slices, "PATIENCE_SECONDS", 30)
        monkeypatch.setattr(time_slices, "time", SimpleNamespace(perf_counter=read_clock))
        monkeypatch.setattr(engine.runner, "run", counted)
        slots.activate(adapters.a)
        stream.cancel()
        assert slots.live == adapters.a
        matrices = 2 * len(linear_shapes(tiny_base.folder))
        assert len(set(seen)) > 2 * matrices  # a step after each one checked and each one loaded
        assert max(Counter(seen).values()) == 2  # a piece reads it as it begins and as it ends

    @pytest.mark.parametrize("where", ["check", "load"])
    def test_a_load_that_fails_in_the_middle_lets_the_streams_go_on(
        self,
        start_fast: StartFast,
        adapters: Adapters,
        tiny_base: BaseModel,
        where: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        engine = start_fast()
        slots = AdapterSlots(engine, tiny_base, adapters.root)
        expected = answer(engine, "Why?")
        module, name = {"check": (lora, "tensor_problems"), "load": (lora_matrices, "_parts")}[
            where
        ]
        monkeypatch.setattr(module, name, lambda *_, **__: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            slots.activate(adapters.a)
        with engine.loop.time_slices.slice():  # nobody else has kept one
            assert len(engine.loop.time_slices._queue) == 1
        assert answer(engine, "Why?") == expected
        assert engine.adapters == set()

    def test_a_load_does_not_wait_for_ever_for_a_step_that_hangs(
        self,
        start_fast: StartFast,
        adapters: Adapters,
        tiny_base: BaseModel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        engine, hangs, over = start_fast(), threading.Event(), threading.Event()

        def hang(*_: Any) -> None:
            hangs.set()
            over.wait(30)

        monkeypatch.setattr(engine.runner, "run", hang)
        monkeypatch.setattr(time_slices, "PATIENCE_SECONDS", 0.001)
        stream = engine.submit(ask("Why?"))
        assert hangs.wait(30)
        engine.load_adapter(adapters.a, adapters.folder(adapters.a))
        assert engine.adapters == {adapters.a}
        over.set()
        assert isinstance(list(stream)[-1], Failed)

    def test_many_who_ask_cancel_and_swap_at_once_leave_nothing_behind(
        self, start_fast: StartFast, adapters: Adapters, tiny_base: BaseModel
    ) -> None:
        engine = start_fast("int4", max_rows=6)
        slots = AdapterSlots(engine, tiny_base, adapters.root)

        def chat(number: int) -> int:
            ends = 0
            for turn in range(12):
                with slots.pin_live() as version:
                    request = ask(f"{STORY[: 40 * number]} {turn}", adapter=version)
                    stream = engine.submit(replace(request, user=str(number % 3)))
                    if (turn + number) % 3 == 0:
                        stream.cancel()
                    ends += isinstance(list(stream)[-1], Finished)
            return ends

        with ThreadPoolExecutor(8) as pool:
            chats = [pool.submit(chat, number) for number in range(8)]
            for version in (adapters.a, adapters.b, None) * 4:
                slots.activate(version)
            assert [future.result(timeout=60) for future in chats] == [12] * 8
        assert nothing_is_held(engine)
        assert engine.adapters == set()
