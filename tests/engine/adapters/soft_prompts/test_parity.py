"""Prefix tuning, prompt tuning and P-tuning are computed as peft computes them, in any company.

Bundles are written by peft, and peft's own forward pass and `generate` say what is right.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.kernels.interface import PAGE_TOKENS
from engine.reference import ReferenceEngine
from engine.request import collect
from engine.serving import scheduler
from engine.storage import folder_of
from tests.engine.adapters.soft_prompts.conftest import (
    COMPLETION,
    QUESTION,
    STORY,
    TOLERANCE,
    Home,
    Start,
    assert_far,
    generated,
    score,
    text,
)
from tests.helpers import answer, ask, make_bundle
from tests.support.soft_prompts import KINDS, make_soft_bundle


class TestParity:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("family", "tokens"),
        [("llama", 5), ("llama", PAGE_TOKENS), ("llama", 45), ("qwen2", 70), ("glm", 45)],
    )
    def test_scores_and_greedy_answers_are_pefts(
        self, start: Start, homes: Callable[[str], Home], family: str, kind: str, tokens: int
    ) -> None:
        home = homes(family)
        digest = home.make(kind, tokens)
        engine, peer = start(home), home.peer(digest)
        home.load(engine, digest)
        expected = peer.logprobs(QUESTION, COMPLETION)
        assert score(engine, digest) == pytest.approx(expected, abs=TOLERANCE)
        assert text(engine, digest) == generated(peer)
        assert_far(expected, home.peer(None).logprobs(QUESTION, COMPLETION))

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_reference_engine_serves_them_too_beside_lora(self, llama: Home, kind: str) -> None:
        soft, lora = llama.make(kind, 9), make_bundle(llama.root, llama.base)
        engine = ReferenceEngine(llama.base, dtype=torch.float32)
        try:
            alone = text(engine, None)
            llama.load(engine, lora)
            with_lora = text(engine, lora)
            llama.load(engine, soft)
            assert engine.adapters == {lora, soft}
            peer = llama.peer(soft)
            expected = peer.logprobs(QUESTION, COMPLETION)
            assert score(engine, soft) == pytest.approx(expected, abs=TOLERANCE)
            versions = [None, soft, lora, soft]
            streams = engine.submit_many(
                [ask(QUESTION, adapter=v, max_new_tokens=10) for v in versions]
            )
            said = [collect(stream).text for stream in streams]
            assert said == [alone, generated(peer), with_lora, generated(peer)]
            engine.unload_adapter(soft)
            assert engine.adapters == {lora}
            assert text(engine, lora) == with_lora
        finally:
            engine.close()

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("chunk", [7, PAGE_TOKENS])
    def test_a_prompt_read_in_chunks_gives_pefts_scores(
        self, start: Start, llama: Home, monkeypatch: pytest.MonkeyPatch, kind: str, chunk: int
    ) -> None:
        monkeypatch.setattr(scheduler, "MAX_CHUNK_TOKENS", chunk)
        digest = llama.make(kind, 45)
        engine = start(llama)
        llama.load(engine, digest)
        expected = llama.peer(digest).logprobs(STORY, COMPLETION)
        assert score(engine, digest, STORY) == pytest.approx(expected, abs=TOLERANCE)

    @pytest.mark.parametrize("kind", KINDS)
    def test_quantized_weights_are_changed_by_it_as_whole_ones_are(
        self, start: Start, llama: Home, kind: str
    ) -> None:
        """int8 changes this model's log-probabilities by less than 0.1, the adapter by more."""
        digest = llama.make(kind, 45)
        engine = start(llama, quantization="int8")
        llama.load(engine, digest)
        expected = llama.peer(digest).logprobs(QUESTION, COMPLETION)
        assert score(engine, digest) == pytest.approx(expected, abs=0.1)
        assert_far(expected, score(engine, None))

    def test_a_prompt_of_real_tokens_embeddings_is_those_tokens(
        self, start: Start, llama: Home, tmp_path: Path
    ) -> None:
        """What prompt tuning is, by its definition (Lester et al. 2021, 2), without peft."""
        peer = llama.peer(None)
        before = peer.tokenizer.encode("The old sailor said hello.")
        table = peer.model.get_input_embeddings().weight.detach()
        digest = make_soft_bundle(
            tmp_path,
            llama.base,
            "prompt",
            len(before),
            tensors=lambda tensors: {key: table[before].clone() for key in tensors},
        )
        engine = start(llama)
        engine.load_adapter(digest, folder_of(tmp_path, digest))
        made = peer.tokenizer.encode(COMPLETION + "<|im_end|>")
        ids = [*before, *peer.prompt_ids(QUESTION), *made]
        logprobs = peer.logits(ids).log_softmax(-1)
        expected = [
            float(logprobs[len(ids) - len(made) + i - 1, token]) for i, token in enumerate(made)
        ]
        assert score(engine, digest) == pytest.approx(expected, abs=TOLERANCE)


class TestCompany:
    def test_rows_of_every_kind_decode_together_as_each_alone(
        self, start: Start, llama: Home
    ) -> None:
        soft = [llama.make(kind, 10 + 20 * i) for i, kind in enumerate(KINDS)]
        lora = make_bundle(llama.root, llama.base)
        versions = [None, *soft, lora]
        engine = start(llama)
        for digest in (*soft, lora):
            llama.load(engine, digest)
        alone = {version: text(engine, version) for version in versions}
        assert len({*alone.values()}) == len(versions)
        assert [alone[digest] for digest in soft] == [generated(llama.peer(d)) for d in soft]
        requests = [ask(QUESTION, adapter=v, max_new_tokens=10) for v in versions * 3]
        said = [collect(stream).text for stream in engine.submit_many(requests)]
        assert said == [alone[version] for version in versions] * 3

    @pytest.mark.parametrize("tokens", [20, 45])
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_beginning_seen_before_is_shared_and_the_answer_stays_pefts(
        self, start: Start, llama: Home, kind: str, tokens: int
    ) -> None:
        digest, other = llama.make(kind, tokens), llama.make(kind, tokens, seed=1)
        engine = start(llama)
        llama.load(engine, digest)
        llama.load(engine, other)
        expected = {d: generated(llama.peer(d), STORY) for d in (digest, other, None)}
        assert len({*expected.values()}) == 3
        for version in (digest, other, None, digest, other, None):
            assert text(engine, version, STORY) == expected[version]
        again = answer(engine, STORY, adapter=digest, max_new_tokens=10)
        whole_pages = (tokens + again.prompt_tokens - 1) // PAGE_TOKENS * PAGE_TOKENS
        assert again.cached_prompt_tokens == whole_pages - tokens > 0
        found = score(engine, digest, STORY)
        assert found == pytest.approx(llama.peer(digest).logprobs(STORY, COMPLETION), abs=TOLERANCE)

    @pytest.mark.parametrize("prefix_cache", [True, False])
    def test_samples_of_one_prompt_do_not_depend_on_what_is_shared(
        self, start: Start, llama: Home, prefix_cache: bool
    ) -> None:
        digest = llama.make("p-tuning", 45)
        together, alone = start(llama, prefix_cache=prefix_cache), start(llama, prefix_cache=False)
        drawn: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 12}
        requests = [ask(STORY, adapter=digest, seed=seed, **drawn) for seed in range(4)]
        for engine in (together, alone):
            llama.load(engine, digest)
        ends = [collect(stream) for stream in together.submit_many(requests)]
        assert len({end.text for end in ends}) > 1
        for request, end in zip(requests, ends, strict=True):
            assert collect(alone.submit(request)).text == end.text

    def test_an_answer_reports_the_prompts_own_tokens_only(self, start: Start, llama: Home) -> None:
        digest = llama.make("prefix", 45)
        engine = start(llama)
        llama.load(engine, digest)
        plain = answer(engine, QUESTION, max_new_tokens=2)
        soft = answer(engine, QUESTION, adapter=digest, max_new_tokens=2)
        assert soft.prompt_tokens == plain.prompt_tokens
        assert soft.cached_prompt_tokens == 0
