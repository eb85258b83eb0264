"""The fast engine's own promises: a prefix cache that cannot be noticed, draws that do not depend
on company, and rows and pages that come back. What every engine promises is in test_engines.py."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
import torch

from engine import time_slices
from engine.adapters import lora, lora_matrices
from engine.adapters.slots import AdapterSlots
from engine.errors import EngineFailure, ModelUnavailable, Overloaded, PromptTooLong
from engine.fast import FastEngine
from engine.kernels.interface import PAGE_TOKENS, Heads
from engine.messages import Message
from engine.models.catalogue import BaseModel, linear_shapes
from engine.quantization import Quantization
from engine.request import Failed, Finished, ScoreRequest, collect
from engine.serving.kv_cache import page_bytes
from tests.engine.conftest import Adapters
from tests.engine.test_engines import Peer
from tests.helpers import answer, ask

DATA = Path(os.environ.get("BURNISH_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
PROMPTS = DATA / "oasst_prompts.jsonl"
HOLDINGS: tuple[Quantization, ...] = ("none", "int8", "int4")
QUESTIONS = (
    "Tell me about the river and the sea, and what the old sailor said to the cat on the stone.",
    "sea",
    "Hello!",
    "What is the answer to this question?",
    "你好 👍",
    "Why?",
    "Bread needs flour, water, salt and time. How much time?",
)
STORY = "The cat sat on the warm stone and looked at the water. " * 8  # more than 100 tokens
LONG: dict[str, Any] = {"max_new_tokens": 1500, "ignore_eos": True}
DRAWN: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "top_k": 50, "max_new_tokens": 40}


class StartLocal(Protocol):
    """Starts the fast engine; it is closed when the test ends."""

    def __call__(self, quantization: Quantization = "none", **settings: Any) -> FastEngine: ...


@pytest.fixture
def start_local(tiny_base: BaseModel, kernel_cache: Path) -> Iterator[StartLocal]:
    with contextlib.ExitStack() as engines:

        def start(quantization: Quantization = "none", **settings: Any) -> FastEngine:
            settings = {"base": tiny_base, "dtype": torch.float32, **settings}
            engine = FastEngine(
                settings.pop("base"),
                kernel_cache=kernel_cache,
                quantization=quantization,
                **settings,
            )
            engines.callback(engine.close)
            return engine

        yield start


@pytest.fixture(params=HOLDINGS)
def quantization(request: pytest.FixtureRequest) -> Quantization:
    held: Quantization = request.param
    return held


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def load(engine: FastEngine, adapters: Adapters) -> None:
    for digest in (adapters.a, adapters.b):
        engine.load_adapter(digest, adapters.folder(digest))


def bytes_of_a_page() -> int:
    """Of the tiny model, in float32."""
    return page_bytes(2, Heads(query=4, kv=2, dim=8, rotated=8), torch.float32)


def nothing_is_held(engine: FastEngine) -> bool:
    """Whether no sequence and no page is in use, now or within a moment."""
    until(lambda: engine.active_streams == 0)
    return engine.runner.cache.used_pages == 0


class TestPrefixCache:
    def test_a_beginning_seen_before_is_not_computed_again_and_the_answer_is_the_same(
        self, start_local: StartLocal, quantization: Quantization
    ) -> None:
        engine, cold = start_local(quantization), start_local(quantization, prefix_cache=False)
        for question in QUESTIONS[:4]:
            request = ask(STORY + question, max_new_tokens=40)
            warm, unshared = collect(engine.submit(request)), collect(cold.submit(request))
            assert (warm.text, unshared.cached_prompt_tokens) == (unshared.text, 0)
        assert warm.prompt_tokens > 100
        assert warm.cached_prompt_tokens >= 96
        assert warm.cached_prompt_tokens % PAGE_TOKENS == 0

    def test_the_next_turn_of_a_conversation_finds_the_turns_before(
        self, start_local: StartLocal, quantization: Quantization
    ) -> None:
        engine, cold = start_local(quantization), start_local(quantization, prefix_cache=False)
        messages = [Message("user", STORY)]
        cached = []
        for question in QUESTIONS[:3]:
            request = replace(ask("", max_new_tokens=40), messages=tuple(messages))
            end = collect(engine.submit(request))
            assert end == collect(cold.submit(request))
            cached.append(end.cached_prompt_tokens)
            messages += [Message("assistant", end.text), Message("user", question)]
        assert 0 == cached[0] < cached[1] < cached[2]

    @pytest.mark.parametrize("prefix_cache", [True, False])
    def test_after_a_swap_and_back_an_answer_is_a_cold_runs(
        self,
        start_local: StartLocal,
        quantization: Quantization,
        adapters: Adapters,
        tiny_base: BaseModel,
        prefix_cache: bool,
    ) -> None:
        def cold(adapter: str | None) -> str:
            fresh = start_local(quantization, prefix_cache=False)
            load(fresh, adapters)
            return answer(fresh, STORY, adapter=adapter).text

        expected = {adapter: cold(adapter) for adapter in (None, adapters.a, adapters.b)}
        assert len(set(expected.values())) == 3
        engine = start_local(quantization, prefix_cache=prefix_cache)
        slots = AdapterSlots(engine, tiny_base, adapters.root)
        for version in (adapters.a, adapters.b, adapters.a, None, adapters.b, adapters.a):
            slots.activate(version)
            for _ in range(2):
                assert answer(engine, STORY, adapter=version).text == expected[version]
        with slots.pin_live() as version:
            again = answer(engine, STORY, adapter=version)
        assert (again.cached_prompt_tokens > 0) == prefix_cache

    def test_samples_of_one_prompt_compute_it_once(
        self, start_local: StartLocal, quantization: Quantization
    ) -> None:
        requests = [ask(STORY, seed=seed, **DRAWN) for seed in range(8)]
        engine = start_local(quantization)
        ends = [collect(stream) for stream in engine.submit_many(requests)]
        whole_pages = (ends[0].prompt_tokens - 1) // PAGE_TOKENS * PAGE_TOKENS
        assert [end.cached_prompt_tokens for end in ends] == [0] + [whole_pages] * 7
        assert len({end.text for end in ends}) > 1
        unshared = start_local(quantization, prefix_cache=False)
        assert [collect(unshared.submit(request)) for request in requests] == ends

    def test_scores_of_one_prompt_compute_it_once(
        self, start_local: StartLocal, quantization: Quantization, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = start_local(quantization)
        real, computed = engine.runner.run, [0]

        def counted(chunks: Sequence[Any]) -> Any:
            computed[-1] += sum(chunk.end - chunk.begin for chunk in chunks)
            return real(chunks)

        monkeypatch.setattr(engine.runner, "run", counted)
        requests = [
            ScoreRequest((Message("user", STORY),), text) for text in ("The sea.", "No.", "Why?")
        ]
        together = engine.score(requests)
        computed.append(0)
        again = engine.score(requests)
        assert computed[0] > 100
        assert computed[1] < computed[0], "the prompt was computed again"
        for one, other in zip(together, again, strict=True):
            assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-3)
        assert nothing_is_held(engine)

    def test_a_small_cache_forgets_and_still_answers_the_same(
        self, start_local: StartLocal, tiny_base: BaseModel
    ) -> None:
        engine, roomy = start_local(kv_cache_bytes=8 * bytes_of_a_page()), start_local()
        for question in QUESTIONS * 3:
            request = ask(question * 2, max_new_tokens=20)
            assert collect(engine.submit(request)) == collect(roomy.submit(request))
        assert nothing_is_held(engine)


class TestDraws:
    def test_a_seed_gives_the_same_text_alone_and_among_others_that_join_and_leave(
        self, start_local: StartLocal, quantization: Quantization, adapters: Adapters
    ) -> None:
        engine = start_local(quantization)
        load(engine, adapters)
        versions = (None, adapters.a, adapters.b)
        mine = [ask(QUESTIONS[0], adapter=version, seed=7, **DRAWN) for version in versions]
        alone = [collect(engine.submit(request)) for request in mine]
        assert len({end.text for end in alone}) == 3
        for rounds in range(3):
            others = []
            for number, adapter in zip(range(7), itertools.cycle(versions), strict=False):
                request = ask(QUESTIONS[number], adapter=adapter, seed=number, **DRAWN | LONG)
                others.append(engine.submit(request))
                if number == rounds:
                    streams = engine.submit_many(mine)
                if number >= 4:
                    others[number - 4].cancel()
            assert [collect(stream) for stream in streams] == alone
            for stream in others:
                stream.cancel()
                list(stream)

    def test_rows_of_several_adapters_in_one_batch_each_say_what_they_say_alone(
        self, start_local: StartLocal, quantization: Quantization, adapters: Adapters
    ) -> None:
        engine = start_local(quantization)
        load(engine, adapters)
        requests = [
            ask(question, adapter=adapter)
            for question in QUESTIONS
            for adapter in (None, adapters.a, adapters.b)
        ]
        alone = [collect(engine.submit(request)) for request in requests]
        assert [collect(s) for s in engine.submit_many(requests)] == alone
        for i in range(0, len(alone), 3):
            assert len({end.text for end in alone[i : i + 3]}) == 3

    def test_a_long_prompt_beside_a_running_answer_changes_neither(
        self, start_local: StartLocal, quantization: Quantization
    ) -> None:
        requests = [ask("Why?", max_new_tokens=150, ignore_eos=True), ask(STORY * 6)]
        cold = start_local(quantization, prefix_cache=False)
        alone = [collect(cold.submit(request)) for request in requests]
        engine = start_local(quantization, prefix_cache=False)
        first = engine.submit(requests[0])
        next(iter(first))
        second = engine.submit(requests[1])
        assert [list(first)[-1], collect(second)] == alone
        assert alone[1].prompt_tokens > 700


class TestRoom:
    def test_a_budget_below_one_page_is_refused_at_start(self, start_local: StartLocal) -> None:
        with pytest.raises(ModelUnavailable, match="bytes for keys and values hold not even 32"):
            start_local(kv_cache_bytes=bytes_of_a_page() - 1)

    def test_what_the_budget_cannot_hold_is_refused_and_what_it_can_is_answered(
        self, start_local: StartLocal
    ) -> None:
        engine = start_local(kv_cache_bytes=4 * bytes_of_a_page())
        assert engine.context_tokens == 4 * PAGE_TOKENS
        own = engine.count_prompt_tokens([Message("user", "")])
        for tokens in (128, 129, 1280):
            with pytest.raises(PromptTooLong, match=f"{tokens} tokens; the context holds 128"):
                engine.submit(ask("~" * (tokens - own)))
        longest = answer(engine, "~" * (127 - own), max_new_tokens=500, ignore_eos=True)
        assert (longest.prompt_tokens, longest.completion_tokens) == (127, 1)
        whole = answer(engine, "~", max_new_tokens=500, ignore_eos=True)
        assert whole.prompt_tokens + whole.completion_tokens == 128
        assert nothing_is_held(engine)

    def test_answers_that_do_not_fit_together_are_made_one_after_another(
        self, start_local: StartLocal
    ) -> None:
        engine = start_local(kv_cache_bytes=4 * bytes_of_a_page())
        requests = [ask(q, max_new_tokens=60, ignore_eos=True) for q in QUESTIONS[1:6]]
        alone = [collect(engine.submit(request)) for request in requests]
        assert [collect(stream) for stream in engine.submit_many(requests)] == alone
        assert nothing_is_held(engine)

    def test_scores_that_wait_do_not_fill_the_queue_of_those_who_chat(
        self, start_local: StartLocal
    ) -> None:
        engine = start_local(max_rows=1, max_queue=2)
        running = engine.submit(ask("Why?", **LONG))
        next(iter(running))
        request = ScoreRequest((Message("user", "Hi"),), "The sea.")
        with ThreadPoolExecutor(1) as pool:
            scores = pool.submit(engine.score, [request] * 20)
            until(lambda: engine.active_streams == 21)
            waiting = engine.submit_many([ask("Hi"), ask("sea")])
            with pytest.raises(Overloaded, match="2 answers are waiting"):
                engine.submit(ask("Why?"))
            running.cancel()
            assert len(set(scores.result(timeout=30))) == 1
        assert all(isinstance(list(stream)[-1], Finished) for stream in waiting)


class TestLeaving:
    def test_a_cancelled_answer_is_out_within_one_step_with_its_pages(
        self, start_local: StartLocal
    ) -> None:
        engine = start_local(prefix_cache=False)
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
        until(lambda: len(steps) > 3)
        stream.cancel()
        list(stream)
        until(lambda: engine.active_streams == 0)
        until(lambda: steps[-1][1:] == (0, 0))
        assert all(step[1:] == (0, 0) for step in steps if step[0])

    def test_50_cancelled_answers_leave_nothing_behind(
        self, start_local: StartLocal, quantization: Quantization
    ) -> None:
        engine = start_local(quantization, max_rows=8)
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

    def test_late_answers_leave_nothing_behind(self, start_local: StartLocal) -> None:
        engine = start_local(max_rows=2)
        late = replace(ask(STORY, **LONG), timeout_seconds=0.05)
        ends = [list(stream)[-1] for stream in engine.submit_many([late] * 6)]
        assert all(isinstance(end, Failed) for end in ends)
        assert nothing_is_held(engine)


class TestFailures:
    def test_a_failing_step_frees_its_pages_and_spares_those_who_wait(
        self, start_local: StartLocal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = start_local(max_rows=2)
        expected = answer(engine, "sea")
        real, calls = engine.runner.run, itertools.count()

        def fails_once(chunks: Sequence[Any]) -> Any:
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
        self, start_local: StartLocal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = start_local()
        real = engine.runner.run

        def fails_after_computing(chunks: Sequence[Any]) -> Any:
            real(chunks)
            raise RuntimeError("out of luck")

        monkeypatch.setattr(engine.runner, "run", fails_after_computing)
        assert isinstance(list(engine.submit(ask(STORY)))[-1], Failed)
        monkeypatch.undo()
        assert answer(engine, STORY).cached_prompt_tokens == 0

    def test_a_plan_that_fails_ends_everybody_and_the_next_request_works(
        self, start_local: StartLocal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = start_local()

        def fail() -> Any:
            raise RuntimeError("no plan")

        monkeypatch.setattr(engine.loop.scheduler, "_next_prompt", lambda _: fail())
        with pytest.raises(EngineFailure, match="no plan"):
            answer(engine, "Why?")
        monkeypatch.undo()
        assert answer(engine, "Why?").text
        assert nothing_is_held(engine)

    def test_a_row_whose_logits_cannot_be_drawn_from_fails_alone(
        self, start_local: StartLocal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = start_local()
        expected = [answer(engine, q, max_new_tokens=40) for q in QUESTIONS[:3]]
        real = engine.runner.run

        def nan_where_drawn(chunks: Sequence[Any]) -> Any:
            logits = real(chunks)
            row = 0
            for chunk in chunks:
                if chunk.wanted and chunk.sequence.user == "unlucky":
                    logits[row] = float("nan")
                row += len(chunk.wanted)
            return logits

        monkeypatch.setattr(engine.runner, "run", nan_where_drawn)
        requests = [ask(q, max_new_tokens=40) for q in QUESTIONS[:3]]
        streams = engine.submit_many([*requests, replace(ask("Why?", **DRAWN), user="unlucky")])
        *good, bad = [list(stream)[-1] for stream in streams]
        assert good == expected
        assert isinstance(bad, Failed)
        assert isinstance(bad.error, EngineFailure)
        assert nothing_is_held(engine)

    def test_text_that_cannot_be_decoded_ends_its_stream_alone(
        self, start_local: StartLocal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = start_local()
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

    def test_scores_are_queued_all_or_none(self, start_local: StartLocal) -> None:
        engine = start_local()
        good = ScoreRequest((Message("user", "Hi"),), "The sea.")
        with pytest.raises(PromptTooLong):
            engine.score([good, replace(good, completion="~" * engine.context_tokens)])
        assert engine.active_streams == 0


class TestAdaptersAndThreads:
    def test_closing_while_an_adapter_loads_harms_neither(
        self, start_local: StartLocal, adapters: Adapters
    ) -> None:
        engine = start_local()
        with ThreadPoolExecutor(2) as pool:
            loads = [pool.submit(load, engine, adapters) for _ in range(2)]
            engine.close()
            for loaded in loads:
                loaded.result(timeout=30)
        assert not engine.alive

    def test_a_running_stream_gets_a_token_after_each_piece_of_an_activation(
        self,
        start_local: StartLocal,
        adapters: Adapters,
        tiny_base: BaseModel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        engine = start_local("int4")
        slots = AdapterSlots(engine, tiny_base, adapters.root)
        stream = engine.submit(ask("Why?", **LONG))
        next(iter(stream))
        real, steps = engine.runner.run, [0]
        seen = []  # how many steps there were whenever the work in the background read its clock

        def counted(*arguments: Any) -> Any:
            steps[0] += 1
            return real(*arguments)

        def read_clock() -> float:
            until(
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
        start_local: StartLocal,
        adapters: Adapters,
        tiny_base: BaseModel,
        where: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        engine = start_local()
        slots = AdapterSlots(engine, tiny_base, adapters.root)
        expected = answer(engine, "Why?")
        module, name = {
            "check": (lora, "tensor_problems"),
            "load": (lora_matrices, "_parts"),
        }[where]
        monkeypatch.setattr(module, name, lambda *_, **__: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            slots.activate(adapters.a)
        with engine.loop.time_slices.slice():  # nobody else has kept one
            assert len(engine.loop.time_slices._queue) == 1
        assert answer(engine, "Why?") == expected
        assert engine.adapters == set()

    def test_a_load_does_not_wait_for_ever_for_a_step_that_hangs(
        self,
        start_local: StartLocal,
        adapters: Adapters,
        tiny_base: BaseModel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        engine, hangs, over = start_local(), threading.Event(), threading.Event()

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
        self, start_local: StartLocal, adapters: Adapters, tiny_base: BaseModel
    ) -> None:
        engine = start_local("int4", max_rows=6)
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


@pytest.mark.slow
@pytest.mark.skipif(not PROMPTS.is_file(), reason=f"needs {PROMPTS} (set BURNISH_TEST_DATA)")
def test_50_real_prompts_are_answered_token_for_token_as_transformers_does(
    start_local: StartLocal, smollm: BaseModel
) -> None:
    prompts = [json.loads(line) for line in PROMPTS.read_text("utf-8").splitlines()][:50]
    engine = start_local(base=smollm)
    requests = [ask(prompt, max_new_tokens=32, logprobs=0) for prompt in prompts]
    ends = [collect(stream) for stream in engine.submit_many(requests)]
    engine.close()
    peer = Peer(smollm)
    for prompt, end in zip(prompts, ends, strict=True):
        made = [token.token_id for token in end.logprobs]
        before = peer.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        # One pass tells what `generate` would take at each step: all before it is the same
        with torch.no_grad():
            logits = peer.model(torch.tensor([[*before, *made]])).logits[0, len(before) - 1 : -1]
        assert made == logits.argmax(-1).tolist(), prompt
