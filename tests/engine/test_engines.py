"""The reference engine: the right tokens, one terminal event a stream, and nobody hurts another."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.errors import (
    Conflict,
    DeadlineExceeded,
    EngineFailure,
    InvalidInput,
    Overloaded,
    PromptTooLong,
    UnknownId,
)
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.request import (
    Failed,
    Finished,
    GenerationRequest,
    ScoreRequest,
    Stream,
    StreamEvent,
    TextDelta,
    collect,
)
from tests.engine.conftest import Adapters, AnyEngine, StartEngine
from tests.helpers import answer, ask

# Ragged: 1 to 60 tokens; the tiny model ends its answers to the second and third by itself.
QUESTIONS = (
    "Tell me about the river and the sea, and what the old sailor said to the cat on the stone.",
    "sea",
    "Hello!",
    "",
    "What is the answer to this question?",
    "你好 👍",
)
LONG = {"max_new_tokens": 1500, "ignore_eos": True}  # seconds of work for the tiny model


class Peer:
    """transformers' own greedy `generate`, one prompt at a time."""

    def __init__(self, base: BaseModel) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base.folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)

    def answer(self, question: str, max_new_tokens: int) -> tuple[str, int]:
        """The text and how many tokens it took."""
        prompt = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        ids = self.model.generate(**prompt, max_new_tokens=max_new_tokens, do_sample=False)[0]
        made = ids[prompt["input_ids"].shape[1] :]
        return self.tokenizer.decode(made, skip_special_tokens=True), len(made)

    def continued(self, question: str, begun: str, new_tokens: int) -> str:
        """A begun answer with so many greedy tokens after it."""
        prompt = self.tokenizer.encode(
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        made = self.tokenizer.encode(begun)
        for _ in range(new_tokens):
            with torch.no_grad():
                logits = self.model(torch.tensor([prompt + made])).logits[0, -1]
            made.append(int(logits.argmax()))
        return str(self.tokenizer.decode(made, skip_special_tokens=True))

    def logprobs(self, question: str, completion: str, *, complete: bool = True) -> list[float]:
        """Log-probability of each token of a completion, from one plain forward pass."""
        made = self.tokenizer.encode(completion + ("<|im_end|>" if complete else ""))
        return self.logprobs_of_ids(question, made)

    def logprobs_of_ids(self, question: str, made: list[int]) -> list[float]:
        """The same of a completion's tokens."""
        prompt = self.tokenizer.encode(
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        with torch.no_grad():
            logprobs = self.model(torch.tensor([prompt + made])).logits[0].log_softmax(-1)
        return [float(logprobs[len(prompt) + i - 1, token]) for i, token in enumerate(made)]


def events_of(stream: Stream) -> list[StreamEvent]:
    """All events, after checking that one is terminal, comes last and holds all the text."""
    events = list(stream)
    terminal = [isinstance(event, Finished | Failed) for event in events]
    assert terminal == [False] * (len(events) - 1) + [True]
    assert list(stream) == []
    shown = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert events[-1].text == shown
    return events


def end_of(stream: Stream) -> StreamEvent:
    return events_of(stream)[-1]


@contextlib.contextmanager
def paused(engine: AnyEngine) -> Iterator[None]:
    """The engine's thread waits before its next step while the block runs."""
    resume, step = threading.Event(), engine.loop.step

    def wait_first() -> None:
        assert resume.wait(30)
        step()

    engine.loop.step = wait_first  # type: ignore[method-assign]
    try:
        yield
    finally:
        engine.loop.step = step  # type: ignore[method-assign]
        resume.set()


def rest_of(stream: Stream) -> StreamEvent:
    """The last event of a stream of which some have been read."""
    return list(stream)[-1]


def first_delta(stream: Stream) -> str:
    event = next(iter(stream))
    assert isinstance(event, TextDelta)
    return event.text


class TestTokens:
    def test_greedy_answers_are_those_of_transformers_generate_alone_and_together(
        self, engine: AnyEngine, tiny_base: BaseModel
    ) -> None:
        peer = Peer(tiny_base)
        expected = [peer.answer(q, max_new_tokens=24) for q in QUESTIONS]
        alone = [answer(engine, q) for q in QUESTIONS]
        together = [collect(s) for s in engine.submit_many([ask(q) for q in QUESTIONS])]
        assert [(a.text, a.completion_tokens) for a in alone] == expected
        assert [(a.text, a.completion_tokens) for a in together] == expected
        assert {a.reason for a in alone} == {"stop", "length"}

    def test_long_answers_are_those_of_transformers_generate(
        self, engine: AnyEngine, tiny_base: BaseModel
    ) -> None:
        questions, peer = (QUESTIONS[0], QUESTIONS[4]), Peer(tiny_base)
        streams = engine.submit_many([ask(q, max_new_tokens=200) for q in questions])
        together = [collect(stream) for stream in streams]
        expected = [peer.answer(q, max_new_tokens=200) for q in questions]
        assert [(a.text, a.completion_tokens) for a in together] == expected
        assert max(a.completion_tokens for a in together) > 150

    def test_answers_that_join_while_others_run_are_the_same_too(self, engine: AnyEngine) -> None:
        alone = [answer(engine, q, max_new_tokens=60) for q in QUESTIONS]
        streams = []
        for question in QUESTIONS:  # each joins after the one before has begun to speak
            streams.append(engine.submit(ask(question, max_new_tokens=60)))
            next(iter(streams[-1]))
        assert [rest_of(s) for s in streams] == alone

    def test_more_answers_than_rows_are_made_one_after_another(
        self, start: StartEngine, tiny_base: BaseModel
    ) -> None:
        engine = start(tiny_base, max_rows=2)
        alone = [answer(engine, q) for q in QUESTIONS]
        assert [collect(s) for s in engine.submit_many([ask(q) for q in QUESTIONS])] == alone
        engine.close()

    def test_a_seed_gives_the_same_text_alone_and_in_a_batch(self, engine: AnyEngine) -> None:
        options = {"temperature": 1.0, "top_p": 0.9, "top_k": 50}
        requests = [ask(q, seed=seed, **options) for q in QUESTIONS[:3] for seed in (1, 2)]
        alone = [collect(engine.submit(request)) for request in requests]
        assert [collect(s) for s in engine.submit_many(requests)] == alone
        assert alone[0].text != alone[1].text, "the seed changes nothing"

    def test_the_embedded_models_greedy_answers_are_those_of_transformers_generate(
        self, start: StartEngine, smollm: BaseModel
    ) -> None:
        questions = ("Why is the sky blue?", "Say only the word yes.", "用中文说你好。")
        engine = start(smollm)
        streams = engine.submit_many([ask(q, max_new_tokens=12) for q in questions])
        answers = [collect(stream) for stream in streams]
        engine.close()
        peer = Peer(smollm)
        expected = [peer.answer(q, max_new_tokens=12) for q in questions]
        assert [(a.text, a.completion_tokens) for a in answers] == expected


class TestEndings:
    def test_an_answer_ends_at_its_limit(self, engine: AnyEngine) -> None:
        end = end_of(engine.submit(ask("Why?", max_new_tokens=7, ignore_eos=True)))
        assert isinstance(end, Finished)
        assert (end.reason, end.completion_tokens) == ("length", 7)

    def test_an_answer_ends_where_the_model_ends_it_unless_that_is_ignored(
        self, engine: AnyEngine
    ) -> None:
        own = answer(engine, "sea", max_new_tokens=40)
        assert own.reason == "stop"
        ignored = answer(engine, "sea", max_new_tokens=40, ignore_eos=True)
        assert (ignored.reason, ignored.completion_tokens) == ("length", 40)
        assert ignored.text.startswith(own.text)

    def test_an_answer_ends_before_a_stop_string(self, engine: AnyEngine) -> None:
        whole = answer(engine, QUESTIONS[0]).text
        stop = whole[9:13]
        end = end_of(engine.submit(ask(QUESTIONS[0], stop=(stop,))))
        assert isinstance(end, Finished)
        assert (end.reason, end.text) == ("stop", whole[: whole.index(stop)])

    def test_tokens_are_counted(self, engine: AnyEngine) -> None:
        end = answer(engine, "Hi", max_new_tokens=5, ignore_eos=True)
        assert end.prompt_tokens == engine.count_prompt_tokens([Message("user", "Hi")])
        assert end.completion_tokens == 5

    def test_a_running_answer_can_be_cancelled(self, engine: AnyEngine) -> None:
        stream = engine.submit(ask("Why?", **LONG))
        shown = first_delta(stream)
        stream.cancel()
        rest = list(stream)
        end = rest[-1]
        assert isinstance(end, Finished)
        assert end.reason == "cancelled"
        assert 1 <= end.completion_tokens < 1500
        assert end.text == shown + "".join(e.text for e in rest if isinstance(e, TextDelta))
        assert not any(isinstance(e, Finished | Failed) for e in rest[:-1])
        assert list(stream) == []

    def test_an_answer_cancelled_before_it_began_ends_without_text(self, engine: AnyEngine) -> None:
        with paused(engine):
            stream = engine.submit(ask("Why?"))
            stream.cancel()
        prompt_tokens = engine.count_prompt_tokens([Message("user", "Why?")])
        assert events_of(stream) == [Finished("cancelled", "", prompt_tokens, 0)]

    def test_cancelling_one_answer_leaves_the_others_as_they_are(self, engine: AnyEngine) -> None:
        expected = answer(engine, QUESTIONS[0], max_new_tokens=80)
        noisy = [engine.submit(ask(q, **LONG)) for q in QUESTIONS[1:4]]
        for stream in noisy:
            first_delta(stream)
        kept = engine.submit(ask(QUESTIONS[0], max_new_tokens=80))
        for stream in noisy:
            stream.cancel()
        assert end_of(kept) == expected

    def test_cancelling_an_answer_that_has_ended_changes_nothing(self, engine: AnyEngine) -> None:
        stream = engine.submit(ask("sea"))
        events = events_of(stream)
        stream.cancel()
        assert answer(engine, "sea") == events[-1]
        assert list(stream) == []


class TestLogprobs:
    def test_they_are_those_of_a_plain_forward_pass_whatever_the_temperature(
        self, engine: AnyEngine, tiny_base: BaseModel
    ) -> None:
        events = events_of(
            engine.submit(ask("Hi", temperature=1.5, repetition_penalty=1.3, logprobs=3))
        )
        end = events[-1]
        assert isinstance(end, Finished)
        assert len(end.logprobs) == end.completion_tokens
        by_hand = Peer(tiny_base).logprobs_of_ids("Hi", [t.token_id for t in end.logprobs])
        assert [t.logprob for t in end.logprobs] == pytest.approx(by_hand, abs=1e-3)
        for token in end.logprobs:
            values = [value for _, _, value in token.top]
            assert len(values) == 3
            assert values == sorted(values, reverse=True)
            assert token.logprob <= values[0]
        shown = [t for e in events if isinstance(e, TextDelta) for t in e.logprobs]
        assert tuple(shown) == end.logprobs[: len(shown)]

    def test_a_greedy_answer_takes_the_likeliest_token_and_is_not_changed_by_asking(
        self, engine: AnyEngine
    ) -> None:
        plain = answer(engine, "Why?")
        asked = answer(engine, "Why?", logprobs=1)
        assert asked.text == plain.text
        assert plain.logprobs == ()
        for token in asked.logprobs:
            assert token.top == ((token.token_id, token.text, token.logprob),)


class TestDeadlines:
    def test_a_late_answer_fails_and_its_text_is_kept(self, engine: AnyEngine) -> None:
        request = ask("Why?", **LONG)
        begun = time.monotonic()
        collect(engine.submit(request))
        too_soon = (time.monotonic() - begun) / 4  # however fast the machine
        late = end_of(engine.submit(replace(request, timeout_seconds=too_soon)))
        assert isinstance(late, Failed)
        assert isinstance(late.error, DeadlineExceeded)
        assert late.text
        assert answer(engine, "sea").text  # the row is free

    def test_a_waiting_answer_is_late_too(self, start: StartEngine, tiny_base: BaseModel) -> None:
        engine = start(tiny_base, max_rows=1)
        running = engine.submit(ask("Why?", **LONG))
        first_delta(running)
        late = end_of(engine.submit(replace(ask("Why?"), timeout_seconds=0.05)))
        assert isinstance(late, Failed)
        assert isinstance(late.error, DeadlineExceeded)
        assert late.text == ""
        running.cancel()
        engine.close()

    def test_an_answer_in_time_is_not_changed(self, engine: AnyEngine) -> None:
        request = ask("Why?")
        expected = collect(engine.submit(request))
        assert collect(engine.submit(replace(request, timeout_seconds=60))) == expected


def without_rendering(engine: AnyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a prompt that is rendered fails the test."""

    def rendered(_self: object, _messages: object) -> tuple[int, ...]:
        raise AssertionError("it was rendered")

    monkeypatch.setattr(type(engine.renderer), "prompt", rendered)


class TestPrefill:
    def test_a_begun_answer_goes_on_as_transformers_goes_on(
        self, engine: AnyEngine, tiny_base: BaseModel
    ) -> None:
        peer = Peer(tiny_base)
        for begun in ("The river", "The river ", "你"):
            request = replace(ask(QUESTIONS[0], ignore_eos=True, max_new_tokens=12), prefill=begun)
            end = end_of(engine.submit(request))
            assert isinstance(end, Finished)
            assert begun + end.text == peer.continued(QUESTIONS[0], begun, 12)
            prefilled = len(peer.tokenizer.encode(begun))
            alone = engine.count_prompt_tokens(request.messages)
            assert (end.prompt_tokens, end.completion_tokens) == (alone + prefilled, 12)

    def test_a_control_token_in_it_is_text_and_ends_nothing(self, engine: AnyEngine) -> None:
        request = replace(ask("Why?", max_new_tokens=3, ignore_eos=True), prefill="<|im_end|>")
        end = end_of(engine.submit(request))
        assert isinstance(end, Finished)
        assert end.prompt_tokens > engine.count_prompt_tokens(request.messages) + 3
        assert end.completion_tokens == 3

    def test_it_takes_room_of_the_context(self, engine: AnyEngine) -> None:
        long = replace(ask("Why?"), prefill="~" * engine.context_tokens)
        with pytest.raises(PromptTooLong, match="the context holds"):
            engine.submit(long)


class TestBias:
    def test_it_moves_the_choice_and_an_unknown_token_is_refused(
        self, engine: AnyEngine, tiny_base: BaseModel
    ) -> None:
        forced = answer(engine, "Why?", max_new_tokens=3, logit_bias=((70, 100.0),), logprobs=0)
        assert [token.token_id for token in forced.logprobs] == [70, 70, 70]
        vocabulary = Peer(tiny_base).model.config.vocab_size
        with pytest.raises(InvalidInput, match=f"token {vocabulary}; the model has"):
            engine.submit(ask("Why?", logit_bias=((vocabulary, 1.0),)))

    def test_a_greedy_answer_with_a_penalty_does_not_repeat_itself(self, engine: AnyEngine) -> None:
        options = {"max_new_tokens": 20, "ignore_eos": True, "logprobs": 0}
        plain = answer(engine, "Why?", **options)
        varied = answer(engine, "Why?", presence_penalty=2.0, frequency_penalty=2.0, **options)
        kinds = [len({token.token_id for token in a.logprobs}) for a in (plain, varied)]
        assert kinds[0] < kinds[1]


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
        by_hand = Peer(tiny_base).logprobs("Hi", "The sea.", complete=complete)
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
        peer = Peer(tiny_base)
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
