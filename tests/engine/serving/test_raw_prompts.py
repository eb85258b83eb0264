"""Raw prompts over either engine: what follows them, and their own tokens' log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import InvalidInput, PromptTooLong
from engine.fast import FastEngine
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.request import (
    EmbeddingRequest,
    Finished,
    GenerationRequest,
    PromptRead,
    RawPrompt,
    SamplingParams,
    TokenLogprob,
    collect,
)
from tests.engine.conftest import StartFast
from tests.support.chatglm_models import write_tiny_chatglm
from tests.support.engines import STORY, Adapters, AnyEngine, TransformersPeer

TEXT = "The cat sat on the warm stone"
CHINESE = "你好 👍 the sea"  # characters of several tokens


def raw(
    prompt: RawPrompt, *, echo: bool = False, adapter: str | None = None, **sampling: Any
) -> Any:
    params = SamplingParams(**{"temperature": 0, "max_new_tokens": 8, **sampling})
    return GenerationRequest((), params, adapter, prompt=prompt, echo=echo)


def read(engine: AnyEngine, request: GenerationRequest) -> tuple[PromptRead, Finished]:
    """The prompt as the first event tells it, and the end."""
    first, *_, end = engine.submit(request)
    assert isinstance(first, PromptRead)
    assert isinstance(end, Finished)
    return first, end


@pytest.fixture(scope="module")
def peer(tiny_base: BaseModel) -> TransformersPeer:
    return TransformersPeer(tiny_base)


def logits_of(peer: TransformersPeer, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = peer.model(torch.tensor([list(ids)])).logits[0]
    return logits


def assert_scored_like(tokens: Sequence[TokenLogprob], ids: Sequence[int], logits: Any) -> None:
    """The tokens are those of `ids` after the first, with transformers' log-probabilities."""
    logprobs = logits.log_softmax(-1)
    assert [token.token_id for token in tokens] == list(ids[1:])
    for place, token in enumerate(tokens):
        row = logprobs[place]
        assert token.logprob == pytest.approx(float(row[token.token_id]), abs=1e-4)
        best = row.topk(len(token.top))
        assert [value for *_, value in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)


class TestContinuing:
    def test_a_raw_text_is_continued_as_transformers_generate_continues_it(
        self, engine: AnyEngine, peer: TransformersPeer
    ) -> None:
        ids = peer.tokenizer(TEXT)["input_ids"]
        made = peer.model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0]
        expected = peer.tokenizer.decode(made[len(ids) :], skip_special_tokens=True)
        as_text, as_ids = raw(TEXT), raw(tuple(ids))
        assert collect(engine.submit(as_text)).text == expected
        together = [collect(s) for s in engine.submit_many([as_text, as_ids, raw(STORY)])]
        assert [end.text for end in together[:2]] == [expected, expected]
        assert together[0].prompt_tokens == len(ids)

    def test_control_tokens_of_a_raw_text_are_control_tokens(
        self, engine: AnyEngine, peer: TransformersPeer
    ) -> None:
        """A harness renders the chat template itself: that is the chat."""
        rendered = "<|im_start|>user\nsea<|im_end|>\n<|im_start|>assistant\n"
        chat = GenerationRequest((Message("user", "sea"),), raw("").sampling)
        assert collect(engine.submit(raw(rendered))) == collect(engine.submit(chat))

    @pytest.mark.parametrize(
        ("prompt", "said"),
        [
            ("", "the prompt has no tokens"),
            ((), "the prompt has no tokens"),
            ((5, -1), "the prompt has token -1; the model has tokens 0 to"),
            ((5, 10**6), "the prompt has token 1000000; the model has tokens 0 to"),
        ],
    )
    def test_a_prompt_that_the_model_cannot_read_is_refused(
        self, engine: AnyEngine, prompt: RawPrompt, said: str
    ) -> None:
        with pytest.raises(InvalidInput, match=said):
            engine.submit(raw(prompt))

    @pytest.mark.parametrize("prompt", ["~" * 10_000_000, (5,) * 2048])
    def test_a_prompt_beyond_the_context_is_refused(
        self, engine: AnyEngine, prompt: RawPrompt
    ) -> None:
        with pytest.raises(PromptTooLong, match=f"the context holds {engine.context_tokens}"):
            engine.submit(raw(prompt))

    def test_a_request_has_messages_or_a_raw_prompt(self) -> None:
        with pytest.raises(InvalidInput, match="either messages or a raw prompt"):
            GenerationRequest((Message("user", "Hi"),), prompt="Hi")


class TestPrefixModels:
    """ChatGLM-6B's prompts see themselves both ways."""

    def test_a_prompt_is_continued_and_has_no_log_probabilities(self, chatglm1: FastEngine) -> None:
        told, end = read(chatglm1, raw("hello", echo=True, max_new_tokens=3, ignore_eos=True))
        assert (told.text, end.completion_tokens) == ("hello", 3)
        with pytest.raises(InvalidInput, match="reads a prompt both ways"):
            chatglm1.submit(raw("hello", echo=True, logprobs=0))

    def test_token_ids_without_its_marks_are_refused_and_harm_nobody(
        self, chatglm1: FastEngine
    ) -> None:
        running = chatglm1.submit(raw("hello", max_new_tokens=60, ignore_eos=True))
        with pytest.raises(InvalidInput, match="must hold its bos token"):
            chatglm1.submit(raw((30, 31)))
        with pytest.raises(InvalidInput, match="must hold its bos token"):
            chatglm1.embed([EmbeddingRequest((30, 31))])
        assert collect(running).completion_tokens == 60
        [embedding] = chatglm1.embed([EmbeddingRequest("hello")])
        assert embedding.prompt_tokens == len(chatglm1.renderer.raw("hello"))

    @pytest.fixture
    def chatglm1(self, start_fast: StartFast, tmp_path: Path) -> FastEngine:
        write_tiny_chatglm(tmp_path / "model", "chatglm1")
        return start_fast(base=resolve(str(tmp_path / "model"), tmp_path / "cache"))


class TestReading:
    def test_a_prompts_tokens_have_the_log_probabilities_of_a_plain_forward_pass(
        self, engine: AnyEngine, peer: TransformersPeer
    ) -> None:
        ids = peer.tokenizer(TEXT)["input_ids"]
        for prompt in (TEXT, tuple(ids)):
            told, end = read(engine, raw(prompt, echo=True, logprobs=3))
            assert told.text == TEXT
            assert told.first_token == peer.tokenizer.decode(ids[:1])
            assert_scored_like(told.logprobs, ids, logits_of(peer, ids))
            assert {len(token.top) for token in told.logprobs} == {3}
            # What follows is what follows without the prompt being read
            plain = collect(engine.submit(raw(prompt, logprobs=3)))
            assert end.text == plain.text
            assert [token.token_id for token in end.logprobs] == [
                token.token_id for token in plain.logprobs
            ]

    def test_a_prompt_longer_than_a_chunk_is_read_whole_beside_a_running_answer(
        self, engine: AnyEngine, peer: TransformersPeer
    ) -> None:
        ids = tuple(peer.tokenizer(STORY * 12)["input_ids"])
        assert len(ids) > 1200
        running = engine.submit(raw(TEXT, max_new_tokens=60, ignore_eos=True))
        told, _ = read(engine, raw(ids, echo=True, logprobs=1, max_new_tokens=1))
        assert_scored_like(told.logprobs, ids, logits_of(peer, ids))
        assert collect(running).completion_tokens == 60

    def test_batches_tell_what_single_requests_tell(self, engine: AnyEngine) -> None:
        requests = [raw(text, echo=True, logprobs=2) for text in (TEXT, STORY, CHINESE, "sea")]
        alone = [read(engine, request) for request in requests]
        for (told, end), stream in zip(alone, engine.submit_many(requests), strict=True):
            first, *_, last = stream
            assert isinstance(first, PromptRead)
            assert isinstance(last, Finished)
            assert last.text == end.text
            assert first.text == told.text
            mine = [token.logprob for token in first.logprobs]
            assert mine == pytest.approx([token.logprob for token in told.logprobs], abs=1e-4)

    def test_an_adapter_changes_the_log_probabilities_of_a_prompt(
        self, engine: AnyEngine, adapters: Adapters
    ) -> None:
        engine.load_adapter(adapters.a, adapters.folder(adapters.a))
        base, _ = read(engine, raw(TEXT, echo=True, logprobs=0))
        tuned, _ = read(engine, raw(TEXT, echo=True, logprobs=0, adapter=adapters.a))
        differences = [
            abs(one.logprob - other.logprob)
            for one, other in zip(base.logprobs, tuned.logprobs, strict=True)
        ]
        assert max(differences) > 0.1

    def test_without_log_probabilities_a_prompt_is_told_and_shares_the_cache(
        self, start_fast: StartFast
    ) -> None:
        engine = start_fast()
        told, _ = read(engine, raw(STORY, echo=True))
        assert (told.text, told.logprobs) == (STORY, ())
        _, again = read(engine, raw(STORY, echo=True))
        assert again.cached_prompt_tokens > 100
        scored, end = read(engine, raw(STORY, echo=True, logprobs=0))
        assert end.cached_prompt_tokens == 0, "tokens that are not computed have no logits"
        assert len(scored.logprobs) == end.prompt_tokens - 1

    def test_the_text_of_a_control_token_is_its_name(self, engine: AnyEngine) -> None:
        told, _ = read(engine, raw("sea<|im_end|>", echo=True, logprobs=0))
        assert told.logprobs[-1].text == "<|im_end|>"
