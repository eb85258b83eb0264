"""The fast engine: prefix cache, seeds, room and many threads at once."""

from __future__ import annotations

import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.adapters.slots import AdapterSlots
from engine.errors import ModelUnavailable, Overloaded, PromptTooLong
from engine.kernels.interface import PAGE_TOKENS, Heads
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.quantization import Quantization
from engine.request import Finished, ScoreRequest, collect
from engine.serving.kv_cache import page_bytes
from tests.engine.conftest import StartFast
from tests.helpers import answer, ask
from tests.support.engines import (
    DRAWN,
    LONG,
    STORY,
    Adapters,
    TransformersPeer,
    load_both,
    nothing_is_held,
)
from tests.support.waiting import wait_until

DATA = Path(os.environ.get("BURNISH_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))


PROMPTS = DATA / "oasst_prompts.jsonl"


QUESTIONS = (
    "Tell me about the river and the sea, and what the old sailor said to the cat on the stone.",
    "sea",
    "Hello!",
    "What is the answer to this question?",
    "你好 👍",
    "Why?",
    "Bread needs flour, water, salt and time. How much time?",
)


def bytes_of_a_page() -> int:
    """Of the tiny model, in float32."""
    return page_bytes(2, Heads(query=4, kv=2, dim=8, rotated=8), torch.float32)


class TestPrefixCache:
    def test_a_beginning_seen_before_is_not_computed_again_and_the_answer_is_the_same(
        self, start_fast: StartFast, quantization: Quantization
    ) -> None:
        engine, cold = start_fast(quantization), start_fast(quantization, prefix_cache=False)
        for question in QUESTIONS[:4]:
            request = ask(STORY + question, max_new_tokens=40)
            warm, unshared = collect(engine.submit(request)), collect(cold.submit(request))
            assert (warm.text, unshared.cached_prompt_tokens) == (unshared.text, 0)
        assert warm.prompt_tokens > 100
        assert warm.cached_prompt_tokens >= 96
        assert warm.cached_prompt_tokens % PAGE_TOKENS == 0

    def test_the_next_turn_of_a_conversation_finds_the_turns_before(
        self, start_fast: StartFast, quantization: Quantization
    ) -> None:
        engine, cold = start_fast(quantization), start_fast(quantization, prefix_cache=False)
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
        start_fast: StartFast,
        quantization: Quantization,
        adapters: Adapters,
        tiny_base: BaseModel,
        prefix_cache: bool,
    ) -> None:
        def cold(adapter: str | None) -> str:
            fresh = start_fast(quantization, prefix_cache=False)
            load_both(fresh, adapters)
            return answer(fresh, STORY, adapter=adapter).text

        expected = {adapter: cold(adapter) for adapter in (None, adapters.a, adapters.b)}
        assert len(set(expected.values())) == 3
        engine = start_fast(quantization, prefix_cache=prefix_cache)
        slots = AdapterSlots(engine, tiny_base, adapters.root)
        for version in (adapters.a, adapters.b, adapters.a, None, adapters.b, adapters.a):
            slots.activate(version)
            for _ in range(2):
                assert answer(engine, STORY, adapter=version).text == expected[version]
        with slots.pin_live() as version:
            again = answer(engine, STORY, adapter=version)
        assert (again.cached_prompt_tokens > 0) == prefix_cache

    def test_samples_of_one_prompt_compute_it_once(
        self, start_fast: StartFast, quantization: Quantization
    ) -> None:
        requests = [ask(STORY, seed=seed, **DRAWN) for seed in range(8)]
        engine = start_fast(quantization)
        ends = [collect(stream) for stream in engine.submit_many(requests)]
        whole_pages = (ends[0].prompt_tokens - 1) // PAGE_TOKENS * PAGE_TOKENS
        assert [end.cached_prompt_tokens for end in ends] == [0] + [whole_pages] * 7
        assert len({end.text for end in ends}) > 1
        unshared = start_fast(quantization, prefix_cache=False)
        assert [collect(unshared.submit(request)) for request in requests] == ends

    def test_scores_of_one_prompt_compute_it_once(
        self, start_fast: StartFast, quantization: Quantization, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = start_fast(quantization)
        real, computed = engine.runner.run, [0]

        def counted(chunks: list[Any]) -> Any:
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
        self, start_fast: StartFast, tiny_base: BaseModel
    ) -> None:
        engine, roomy = start_fast(kv_cache_bytes=8 * bytes_of_a_page()), start_fast()
        for question in QUESTIONS * 3:
            request = ask(question * 2, max_new_tokens=20)
            assert collect(engine.submit(request)) == collect(roomy.submit(request))
        assert nothing_is_held(engine)


class TestDraws:
    def test_a_seed_gives_the_same_text_alone_and_among_others_that_join_and_leave(
        self, start_fast: StartFast, quantization: Quantization, adapters: Adapters
    ) -> None:
        engine = start_fast(quantization)
        load_both(engine, adapters)
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
        self, start_fast: StartFast, quantization: Quantization, adapters: Adapters
    ) -> None:
        engine = start_fast(quantization)
        load_both(engine, adapters)
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
        self, start_fast: StartFast, quantization: Quantization
    ) -> None:
        requests = [ask("Why?", max_new_tokens=150, ignore_eos=True), ask(STORY * 6)]
        cold = start_fast(quantization, prefix_cache=False)
        alone = [collect(cold.submit(request)) for request in requests]
        engine = start_fast(quantization, prefix_cache=False)
        first = engine.submit(requests[0])
        next(iter(first))
        second = engine.submit(requests[1])
        assert [list(first)[-1], collect(second)] == alone
        assert alone[1].prompt_tokens > 700


class TestRoom:
    def test_a_budget_below_one_page_is_refused_at_start(self, start_fast: StartFast) -> None:
        with pytest.raises(ModelUnavailable, match="bytes for keys and values hold not even 32"):
            start_fast(kv_cache_bytes=bytes_of_a_page() - 1)

    def test_what_the_budget_cannot_hold_is_refused_and_what_it_can_is_answered(
        self, start_fast: StartFast
    ) -> None:
        engine = start_fast(kv_cache_bytes=4 * bytes_of_a_page())
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
        self, start_fast: StartFast
    ) -> None:
        engine = start_fast(kv_cache_bytes=4 * bytes_of_a_page())
        requests = [ask(q, max_new_tokens=60, ignore_eos=True) for q in QUESTIONS[1:6]]
        alone = [collect(engine.submit(request)) for request in requests]
        assert [collect(stream) for stream in engine.submit_many(requests)] == alone
        assert nothing_is_held(engine)

    def test_scores_that_wait_do_not_fill_the_queue_of_those_who_chat(
        self, start_fast: StartFast
    ) -> None:
        engine = start_fast(max_rows=1, max_queue=2)
        running = engine.submit(ask("Why?", **LONG))
        next(iter(running))
        request = ScoreRequest((Message("user", "Hi"),), "The sea.")
        with ThreadPoolExecutor(1) as pool:
            scores = pool.submit(engine.score, [request] * 20)
            wait_until(lambda: engine.active_streams == 21)
            waiting = engine.submit_many([ask("Hi"), ask("sea")])
            with pytest.raises(Overloaded, match="2 answers are waiting"):
                engine.submit(ask("Why?"))
            running.cancel()
            assert len(set(scores.result(timeout=30))) == 1
        assert all(isinstance(list(stream)[-1], Finished) for stream in waiting)


@pytest.mark.slow
@pytest.mark.skipif(not PROMPTS.is_file(), reason=f"needs {PROMPTS} (set BURNISH_TEST_DATA)")
def test_50_real_prompts_are_answered_token_for_token_as_transformers_does(
    start_fast: StartFast, smollm: BaseModel
) -> None:
    prompts = [json.loads(line) for line in PROMPTS.read_text("utf-8").splitlines()][:50]
    engine = start_fast(base=smollm)
    requests = [ask(prompt, max_new_tokens=32, logprobs=0) for prompt in prompts]
    ends = [collect(stream) for stream in engine.submit_many(requests)]
    engine.close()
    peer = TransformersPeer(smollm)
    for prompt, end in zip(prompts, ends, strict=True):
        made = [token.token_id for token in end.logprobs]
        before = peer.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        # One pass tells what `generate` would take at each step: all before it is the same
        with torch.no_grad():
            logits = peer.model(torch.tensor([[*before, *made]])).logits[0, len(before) - 1 : -1]
        assert made == logits.argmax(-1).tolist(), prompt
