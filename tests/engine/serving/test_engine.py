"""The serving engine over either runner: limits, scores, adapters and failures."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.errors import (
    Conflict,
    EngineFailure,
    InvalidBundle,
    Overloaded,
    PromptTooLong,
    UnknownId,
)
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.reference import ReferenceEngine
from engine.request import Failed, Finished, GenerationRequest, ScoreRequest, collect
from tests.engine.conftest import StartEngine
from tests.helpers import answer, ask
from tests.support.engines import (
    LONG,
    QUESTIONS,
    Adapters,
    AnyEngine,
    TransformersPeer,
    end_of,
    first_delta,
    paused,
    rest_of,
)


def without_rendering(engine: AnyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a prompt that is rendered fails the test."""

    def rendered(_self: object, _messages: object) -> tuple[int, ...]:
        raise AssertionError("it was rendered")

    monkeypatch.setattr(type(engine.renderer), "prompt", rendered)


class TestLimits:
    @pytest.mark.parametrize("shape", ["messages", "text", "prefill"])
    def test_what_is_far_too_long_is_refused_before_it_is_rendered(
        self, engine: AnyEngine, shape: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without_rendering(engine, monkeypatch)
        hello, much = Message("user", "hi"), "sea " * 1_000_000
        request = {
            "messages": GenerationRequest((hello,) * (engine.context_tokens + 1)),
            "text": GenerationRequest((Message("system", much), hello)),
            "prefill": GenerationRequest((hello,), prefill=much),
        }[shape]
        with pytest.raises(PromptTooLong, match=f"context holds {engine.context_tokens} tokens"):
            engine.submit(request)

    def test_a_prompt_may_leave_room_for_one_token_but_not_for_none(
        self, engine: AnyEngine
    ) -> None:
        def prompt_of(tokens: int) -> str:
            return "~" * (tokens - engine.count_prompt_tokens([Message("user", "")]))

        context = engine.context_tokens
        end = answer(engine, prompt_of(context - 1), max_new_tokens=50, ignore_eos=True)
        assert (end.prompt_tokens, end.completion_tokens) == (context - 1, 1)
        assert end.reason == "length"
        for tokens in (context, context + 1, 10 * context):
            with pytest.raises(
                PromptTooLong, match=f"{tokens} tokens; the context holds {context}"
            ):
                engine.submit(ask(prompt_of(tokens)))
        assert engine.active_streams == 0

    def test_a_full_queue_refuses_at_once_and_takes_all_of_a_group_or_none(
        self, start: StartEngine, tiny_base: BaseModel
    ) -> None:
        engine = start(tiny_base, max_queue=2)
        with paused(engine):
            first = engine.submit(ask("one"))
            with pytest.raises(Overloaded, match="1 answers are waiting"):
                engine.submit_many([ask("two"), ask("three")])
            second = engine.submit(ask("two"))
            with pytest.raises(Overloaded, match="2 answers are waiting"):
                engine.submit(ask("three"))
            assert engine.active_streams == 2
        assert isinstance(end_of(first), Finished)
        assert isinstance(end_of(second), Finished)
        assert answer(engine, "three").text
        engine.close()

    def test_an_adapter_that_is_not_loaded_is_unknown(
        self, engine: AnyEngine, adapters: Adapters
    ) -> None:
        with pytest.raises(UnknownId, match=r"no adapter sha256:.* is loaded"):
            engine.submit(ask("Why?", adapter=adapters.a))
        with pytest.raises(UnknownId, match="no adapter"):
            engine.score([ScoreRequest((Message("user", "Hi"),), "Ho", adapters.a)])


class TestScores:
    @pytest.mark.parametrize("complete", [True, False])
    def test_a_score_is_the_log_softmax_of_a_plain_forward_pass(
        self, engine: AnyEngine, tiny_base: BaseModel, complete: bool
    ) -> None:
        by_hand = TransformersPeer(tiny_base).logprobs("Hi", "The sea.", complete=complete)
        request = ScoreRequest((Message("user", "Hi"),), "The sea.", complete=complete)
        [score] = engine.score([request])
        assert score.token_logprobs == pytest.approx(by_hand, abs=1e-4)
        assert score.total == pytest.approx(sum(by_hand), abs=1e-3)
        assert score.per_token == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-4)

    def test_scoring_does_not_disturb_a_running_answer(self, engine: AnyEngine) -> None:
        request = ScoreRequest((Message("user", "Hi"),), "The sea.")
        [quiet] = engine.score([request])
        expected = answer(engine, "Why?", max_new_tokens=60)
        stream = engine.submit(ask("Why?", max_new_tokens=60))
        for score in engine.score([request] * 5):
            assert score.token_logprobs == pytest.approx(quiet.token_logprobs, abs=1e-4)
        assert end_of(stream) == expected

    def test_what_does_not_fit_the_context_is_not_scored(self, engine: AnyEngine) -> None:
        request = ScoreRequest((Message("user", "Hi"),), "~" * engine.context_tokens)
        with pytest.raises(PromptTooLong):
            engine.score([request])


class TestAdapters:
    @pytest.mark.integration
    def test_streams_on_different_adapters_each_say_what_their_adapter_says_alone(
        self, engine: AnyEngine, adapters: Adapters
    ) -> None:
        for digest in (adapters.a, adapters.b):
            engine.load_adapter(digest, adapters.folder(digest))
        requests = [
            ask(q, adapter=adapter) for q in QUESTIONS for adapter in (None, adapters.a, adapters.b)
        ]
        alone = [collect(engine.submit(request)) for request in requests]
        assert [collect(s) for s in engine.submit_many(requests)] == alone
        for i in range(0, len(alone), 3):
            assert len({a.text for a in alone[i : i + 3]}) == 3, "the adapters change nothing"

    def test_base_answers_are_the_same_with_adapters_loaded(
        self, engine: AnyEngine, adapters: Adapters
    ) -> None:
        before = [answer(engine, q) for q in QUESTIONS]
        engine.load_adapter(adapters.a, adapters.folder(adapters.a))
        assert [answer(engine, q) for q in QUESTIONS] == before
        mixed = engine.submit_many(
            [ask(q, adapter=adapter) for q in QUESTIONS for adapter in (None, adapters.a)]
        )
        assert [collect(s) for s in mixed][::2] == before

    def test_an_adapters_score_is_that_of_the_weights_merged_by_hand(
        self, engine: AnyEngine, adapters: Adapters, tiny_base: BaseModel
    ) -> None:
        engine.load_adapter(adapters.a, adapters.folder(adapters.a))
        tensors = load_file(adapters.folder(adapters.a) / "adapter_model.safetensors")
        peer = TransformersPeer(tiny_base)
        for key in [k for k in tensors if "lora_A" in k]:
            module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            lora_a, lora_b = tensors[key], tensors[key.replace("lora_A", "lora_B")]
            # Hu et al. 2021, 4.1: W + alpha / r * B A, here with alpha 8 and r 4
            peer.model.get_submodule(module).weight.data += 8 / 4 * lora_b @ lora_a
        by_hand = peer.logprobs("Hi", "Ho")
        [score] = engine.score([ScoreRequest((Message("user", "Hi"),), "Ho", adapters.a)])
        assert score.token_logprobs == pytest.approx(by_hand, abs=1e-3)

    def test_loading_and_freeing_adapters_leaves_the_base_byte_for_byte(
        self, engine: AnyEngine, adapters: Adapters
    ) -> None:
        request = ScoreRequest((Message("user", "Hi"),), "The sea and the river.")
        before = [answer(engine, q) for q in QUESTIONS], engine.score([request])
        for digest in (adapters.a, adapters.b):
            engine.load_adapter(digest, adapters.folder(digest))
            answer(engine, "Why?", adapter=digest)
        for digest in (adapters.a, adapters.b):
            engine.unload_adapter(digest)
        assert ([answer(engine, q) for q in QUESTIONS], engine.score([request])) == before
        with pytest.raises(UnknownId):
            engine.submit(ask("Why?", adapter=adapters.a))

    def test_an_adapter_comes_back_the_same_after_another_had_its_place(
        self, engine: AnyEngine, adapters: Adapters
    ) -> None:
        said = []
        for digest in (adapters.a, adapters.b, adapters.a):
            engine.load_adapter(digest, adapters.folder(digest))
            said.append(answer(engine, "Why?", adapter=digest))
            engine.unload_adapter(digest)
        assert said[0] == said[2] != said[1]

    def test_an_adapter_in_use_is_not_freed_and_its_stream_goes_on(
        self, engine: AnyEngine, adapters: Adapters
    ) -> None:
        engine.load_adapter(adapters.a, adapters.folder(adapters.a))
        stream = engine.submit(ask("Why?", adapter=adapters.a, **LONG))
        first_delta(stream)
        with pytest.raises(Conflict, match="a stream still decodes with this adapter"):
            engine.unload_adapter(adapters.a)
        stream.cancel()
        end = rest_of(stream)
        assert isinstance(end, Finished)
        assert end.reason == "cancelled"
        engine.unload_adapter(adapters.a)

    def test_an_adapter_that_a_waiting_stream_will_use_is_not_freed(
        self, start: StartEngine, tiny_base: BaseModel, adapters: Adapters
    ) -> None:
        engine = start(tiny_base, max_rows=1)
        engine.load_adapter(adapters.a, adapters.folder(adapters.a))
        running = engine.submit(ask("Why?", **LONG))
        first_delta(running)
        waiting = engine.submit(ask("Why?", adapter=adapters.a))
        with pytest.raises(Conflict):
            engine.unload_adapter(adapters.a)
        running.cancel()
        assert isinstance(end_of(waiting), Finished)
        engine.close()

    def test_loading_or_freeing_an_adapter_twice_is_harmless(
        self, engine: AnyEngine, adapters: Adapters
    ) -> None:
        for _ in range(2):
            engine.load_adapter(adapters.a, adapters.folder(adapters.a))
        assert answer(engine, "Why?", adapter=adapters.a).text
        for _ in range(2):
            engine.unload_adapter(adapters.a)
        assert answer(engine, "Why?").text

    def test_an_adapter_freed_before_its_answer_is_queued_refuses_that_answer_alone(
        self, engine: AnyEngine, adapters: Adapters, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for digest in (adapters.a, adapters.b):
            engine.load_adapter(digest, adapters.folder(digest))
        bystander = engine.submit(ask("Why?", max_new_tokens=100, ignore_eos=True))
        real = engine.loop.submit

        def free_first(sequences: Any) -> None:
            engine.unload_adapter(adapters.a)
            real(sequences)

        monkeypatch.setattr(engine.loop, "submit", free_first)
        with pytest.raises(UnknownId, match="freed"):
            engine.submit(ask("Why?", adapter=adapters.a))
        assert isinstance(end_of(bystander), Finished)
        assert engine.adapters == {adapters.b}

    @pytest.mark.integration
    def test_an_adapter_loaded_or_freed_meanwhile_does_not_change_a_running_answer(
        self, engine: AnyEngine, adapters: Adapters
    ) -> None:
        expected = answer(engine, QUESTIONS[0], max_new_tokens=200, ignore_eos=True)
        stream = engine.submit(ask(QUESTIONS[0], max_new_tokens=200, ignore_eos=True))
        for _ in range(3):
            engine.load_adapter(adapters.a, adapters.folder(adapters.a))
            engine.unload_adapter(adapters.a)
        assert end_of(stream) == expected


class TestFailures:
    def test_a_failing_forward_pass_ends_its_streams_and_the_next_request_works(
        self, engine: AnyEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = answer(engine, "Why?")
        real_forward, calls = engine.runner.run, 0

        def fails_at_the_fifth(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 5:
                raise RuntimeError("out of luck")
            return real_forward(*arguments, **options)

        monkeypatch.setattr(engine.runner, "run", fails_at_the_fifth)
        ends = [end_of(s) for s in engine.submit_many([ask("Why?"), ask("Hi"), ask("sea")])]
        failed = [end for end in ends if isinstance(end, Failed)]
        assert failed, "the failure ended no stream"
        for end in failed:
            assert isinstance(end.error, EngineFailure)
            assert "out of luck" in str(end.error)
        assert expected.text.startswith(ends[0].text)
        assert ends[0].text
        assert answer(engine, "Why?") == expected
        assert engine.alive

    def test_a_failing_command_fails_its_caller_alone(
        self, engine: AnyEngine, adapters: Adapters
    ) -> None:
        expected = answer(engine, "Why?", max_new_tokens=100)
        stream = engine.submit(ask("Why?", max_new_tokens=100))
        with pytest.raises(Exception, match=r"adapter_config\.json"):
            engine.load_adapter("sha256:" + "f" * 64, adapters.root / "absent")
        assert end_of(stream) == expected

    def test_closing_ends_running_and_waiting_streams_and_refuses_new_ones(
        self, start: StartEngine, tiny_base: BaseModel
    ) -> None:
        engine = start(tiny_base, max_rows=2)
        streams = engine.submit_many([ask(q, **LONG) for q in QUESTIONS[:4]])
        first_delta(streams[0])
        assert engine.alive
        engine.close()
        for stream in streams:
            end = rest_of(stream)
            assert isinstance(end, Failed)
            assert isinstance(end.error, EngineFailure)
            assert list(stream) == []
        assert not engine.alive
        with pytest.raises(EngineFailure, match="not running"):
            engine.submit(ask("Why?"))
        with pytest.raises(EngineFailure, match="not running"):
            engine.unload_adapter("sha256:" + "f" * 64)
        engine.close()  # twice is harmless


def test_a_waiting_answer_that_is_cancelled_ends_while_the_rows_are_busy(
    tiny_base: BaseModel,
) -> None:
    engine = ReferenceEngine(tiny_base, dtype=torch.float32, max_rows=1)
    running = engine.submit(ask("Why?", max_new_tokens=1500, ignore_eos=True))
    next(iter(running))
    waiting = engine.submit(ask("Hi"))
    waiting.cancel()
    reader = threading.Thread(target=list, args=(waiting,), daemon=True)
    reader.start()
    try:
        reader.join(1.0)
        assert not reader.is_alive(), "it waits for the running answer to end"
        assert engine.active_streams == 1
    finally:
        running.cancel()
        engine.close()


def test_scoring_an_empty_cut_completion_has_a_mean(engine: AnyEngine) -> None:
    [score] = engine.score([ScoreRequest((Message("user", "Hi"),), "", complete=False)])
    assert score.total == 0
    assert score.per_token == 0


def test_a_load_that_fails_half_way_leaves_the_base_as_it_was(
    engine: AnyEngine, adapters: Adapters, tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    before = answer(engine, "Why?")
    folder = Path(shutil.copytree(adapters.folder(adapters.a), tmp_path / "spoilt"))
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[list(tensors)[-1]] = torch.zeros(3, 3)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(InvalidBundle):
        engine.load_adapter("sha256:" + "1" * 64, folder)
    assert answer(engine, "Why?") == before
