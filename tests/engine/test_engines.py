"""Both engines: the tokens of transformers, and one terminal event for each stream."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from engine.errors import DeadlineExceeded, InvalidInput, PromptTooLong
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.request import Failed, Finished, TextDelta, collect
from tests.engine.conftest import StartEngine
from tests.helpers import answer, ask
from tests.support.engines import (
    LONG,
    QUESTIONS,
    AnyEngine,
    TransformersPeer,
    end_of,
    events_of,
    first_delta,
    paused,
    rest_of,
)


class TestTokens:
    def test_greedy_answers_are_those_of_transformers_generate_alone_and_together(
        self, engine: AnyEngine, tiny_base: BaseModel
    ) -> None:
        peer = TransformersPeer(tiny_base)
        expected = [peer.answer(q, max_new_tokens=24) for q in QUESTIONS]
        alone = [answer(engine, q) for q in QUESTIONS]
        together = [collect(s) for s in engine.submit_many([ask(q) for q in QUESTIONS])]
        assert [(a.text, a.completion_tokens) for a in alone] == expected
        assert [(a.text, a.completion_tokens) for a in together] == expected
        assert {a.reason for a in alone} == {"stop", "length"}

    def test_long_answers_are_those_of_transformers_generate(
        self, engine: AnyEngine, tiny_base: BaseModel
    ) -> None:
        questions, peer = (QUESTIONS[0], QUESTIONS[4]), TransformersPeer(tiny_base)
        streams = engine.submit_many([ask(q, max_new_tokens=120) for q in questions])
        together = [collect(stream) for stream in streams]
        expected = [peer.answer(q, max_new_tokens=120) for q in questions]
        assert [(a.text, a.completion_tokens) for a in together] == expected
        assert max(a.completion_tokens for a in together) > 100

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
        options: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "top_k": 50}
        requests = [ask(q, seed=seed, **options) for q in QUESTIONS[:3] for seed in (1, 2)]
        alone = [collect(engine.submit(request)) for request in requests]
        assert [collect(s) for s in engine.submit_many(requests)] == alone
        assert alone[0].text != alone[1].text, "the seed changes nothing"

    @pytest.mark.slow
    def test_the_embedded_models_greedy_answers_are_those_of_transformers_generate(
        self, start: StartEngine, smollm: BaseModel
    ) -> None:
        questions = ("Why is the sky blue?", "Say only the word yes.", "用中文说你好。")
        engine = start(smollm)
        streams = engine.submit_many([ask(q, max_new_tokens=12) for q in questions])
        answers = [collect(stream) for stream in streams]
        engine.close()
        peer = TransformersPeer(smollm)
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
        by_hand = TransformersPeer(tiny_base).logprobs_of_ids(
            "Hi", [t.token_id for t in end.logprobs]
        )
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
        request = ask("Why?", max_new_tokens=300, ignore_eos=True)
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


class TestPrefill:
    def test_a_begun_answer_goes_on_as_transformers_goes_on(
        self, engine: AnyEngine, tiny_base: BaseModel
    ) -> None:
        peer = TransformersPeer(tiny_base)
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
        vocabulary = TransformersPeer(tiny_base).model.config.vocab_size
        with pytest.raises(InvalidInput, match=f"token {vocabulary}; the model has"):
            engine.submit(ask("Why?", logit_bias=((vocabulary, 1.0),)))

    def test_a_greedy_answer_with_a_penalty_does_not_repeat_itself(self, engine: AnyEngine) -> None:
        options = {"max_new_tokens": 20, "ignore_eos": True, "logprobs": 0}
        plain = answer(engine, "Why?", **options)
        varied = answer(engine, "Why?", presence_penalty=2.0, frequency_penalty=2.0, **options)
        kinds = [len({token.token_id for token in a.logprobs}) for a in (plain, varied)]
        assert kinds[0] < kinds[1]
