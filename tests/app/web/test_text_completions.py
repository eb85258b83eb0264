"""`/v1/completions` through a real server, by OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
import torch

from app.web.openai.legacy_logprobs import token_offsets
from engine.hardware import detect
from engine.models.catalogue import BaseModel
from tests.app.conftest import Played, Shared, draw_ids, served, serving_engine, settings_of
from tests.helpers import make_bundle
from tests.support.engines import TransformersPeer
from tests.support.waiting import wait_until

JSON = {"content-type": "application/json"}
HALF_A_PAIR = b'{"prompt": "\\ud800"}'
TEXT = "The cat sat on the warm stone"
GREEDY: dict[str, Any] = {"model": "live", "temperature": 0}
SCORED: dict[str, Any] = {**GREEDY, "echo": True, "max_tokens": 0}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel) -> Iterator[Shared]:
    """A server with dense weights, so that its numbers are those of transformers."""
    settings = settings_of(tmp_path_factory.mktemp("dense"), tiny_base)
    with pytest.MonkeyPatch.context() as patch:
        in_float32 = replace(detect(), dtype=torch.float32)
        patch.setattr("engine.fast.detect", lambda: in_float32)
        with served(settings.model_copy(update={"quantization": "none"})) as (service, url):
            yield Shared(service, url)


@pytest.fixture
def client(shared: Shared) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def peer(tiny_base: BaseModel) -> TransformersPeer:
    return TransformersPeer(tiny_base)


def logprobs_of(peer: TransformersPeer, ids: Sequence[int]) -> list[float]:
    """Of every token but the first, by one plain forward pass."""
    with torch.no_grad():
        rows = peer.model(torch.tensor([list(ids)])).logits[0].log_softmax(-1)
    return [float(rows[place, token]) for place, token in enumerate(ids[1:])]


class TestTexts:
    def test_a_text_goes_on_and_is_the_same_at_once_streamed_and_asynchronous(
        self, client: openai.OpenAI, peer: TransformersPeer
    ) -> None:
        ids = peer.tokenizer(TEXT)["input_ids"]
        made = peer.model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0]
        expected = peer.tokenizer.decode(made[len(ids) :], skip_special_tokens=True)
        given: dict[str, Any] = {**GREEDY, "prompt": TEXT, "max_tokens": 12}
        whole = client.completions.create(**given)
        assert (whole.object, whole.choices[0].text) == ("text_completion", expected)
        assert whole.usage is not None
        assert whole.usage.prompt_tokens == len(ids)
        assert whole.usage.completion_tokens == len(made) - len(ids)
        chunks = list(
            client.completions.create(**given, stream=True, stream_options={"include_usage": True})
        )
        assert "".join(c.choices[0].text for c in chunks if c.choices) == expected
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
        assert chunks[-1].usage == whole.usage

        async def later() -> str:
            async with openai.AsyncOpenAI(base_url=client.base_url, api_key="none") as other:
                return str((await other.completions.create(**given)).choices[0].text)

        assert asyncio.run(later()) == expected

    def test_prompts_may_be_texts_or_token_ids_one_or_several(self, client: openai.OpenAI) -> None:
        ids = [5, 6, 7, 8]
        given: dict[str, Any] = {**GREEDY, "max_tokens": 6, "echo": True}
        one, other = (client.completions.create(**given, prompt=p) for p in (TEXT, ids))
        assert one.choices[0].text.startswith(TEXT)
        expected = [one.choices[0].text, other.choices[0].text]
        for prompt in ([TEXT, TEXT], [ids, ids]):
            both = client.completions.create(**given, prompt=prompt)
            assert [c.index for c in both.choices] == [0, 1]
            assert len({choice.text for choice in both.choices}) == 1
            assert both.choices[0].text in expected
            single = one if prompt[0] == TEXT else other
            assert both.usage.prompt_tokens == 2 * single.usage.prompt_tokens

    def test_the_choices_of_a_prompt_come_together_and_draw_with_seeds_of_their_own(
        self, client: openai.OpenAI
    ) -> None:
        given: dict[str, Any] = {"model": "live", "temperature": 1.5, "max_tokens": 12, "seed": 7}
        apart = [
            client.completions.create(**{**given, "seed": seed}, prompt=prompt).choices[0].text
            for prompt in (TEXT, "Say")
            for seed in (7, 8)
        ]
        together = client.completions.create(**given, prompt=[TEXT, "Say"], n=2, best_of=2)
        assert [choice.text for choice in together.choices] == apart
        assert len(set(apart)) > 2, "the seed changes nothing"

    def test_a_text_ends_before_a_stop_string_and_after_16_tokens(
        self, client: openai.OpenAI
    ) -> None:
        whole = client.completions.create(**GREEDY, prompt=TEXT)
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 16
        stop = whole.choices[0].text[4:7]
        cut = client.completions.create(**GREEDY, prompt=TEXT, stop=stop).choices[0]
        assert cut.text == whole.choices[0].text.partition(stop)[0]
        assert cut.finish_reason == "stop"

    def test_a_thought_is_text_like_any_other(
        self, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, shared: Shared
    ) -> None:
        ids = list(serving_engine(shared.service).renderer.raw("<think>no</think> yes"))
        draw_ids(monkeypatch, ids)
        said = client.completions.create(**GREEDY, prompt=TEXT, max_tokens=len(ids))
        assert said.choices[0].text == "<think>no</think> yes"

    def test_nothing_is_stored(self, client: openai.OpenAI, shared: Shared) -> None:
        before = shared.service.workspace.store.counts()
        client.completions.create(**GREEDY, prompt=[TEXT, "Say"], n=2)
        assert shared.service.workspace.store.counts() == before


class TestScores:
    @pytest.mark.parametrize("new_tokens", [0, 1])
    def test_a_prompts_tokens_are_scored_as_by_a_plain_forward_pass(
        self, client: openai.OpenAI, peer: TransformersPeer, new_tokens: int
    ) -> None:
        ids = peer.tokenizer(TEXT)["input_ids"]
        scored = client.completions.create(
            **{**SCORED, "max_tokens": new_tokens}, prompt=[ids], logprobs=2
        )
        [choice] = scored.choices
        logprobs: Any = choice.logprobs
        assert choice.text.startswith(TEXT)
        assert (choice.text == TEXT) == (new_tokens == 0)
        assert scored.usage is not None
        assert scored.usage.completion_tokens == new_tokens
        lengths = {len(getattr(logprobs, name)) for name in type(logprobs).model_fields}
        assert lengths == {len(ids) + new_tokens}
        assert "".join(logprobs.tokens[: len(ids)]) == TEXT
        assert logprobs.token_logprobs[0] is None
        expected = logprobs_of(peer, ids)
        assert logprobs.token_logprobs[1 : len(ids)] == pytest.approx(expected, abs=1e-4)
        assert logprobs.top_logprobs[0] is None
        for token, logprob, top in zip(
            logprobs.tokens[1:], logprobs.token_logprobs[1:], logprobs.top_logprobs[1:], strict=True
        ):
            assert top[token] == logprob, "the token itself is among the alternatives"
            assert len(top) in (2, 3)
        for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
            assert choice.text[offset : offset + len(token)] == token

    def test_a_batch_of_prompts_is_scored_as_each_of_them(self, client: openai.OpenAI) -> None:
        prompts = [TEXT, "Say hello to the old sailor, please.", "sea 你好"]
        alone = [
            client.completions.create(**SCORED, prompt=prompt, logprobs=0).choices[0]
            for prompt in prompts
        ]
        together = client.completions.create(**SCORED, prompt=prompts, logprobs=0).choices
        for one, other in zip(alone, together, strict=True):
            assert one.logprobs is not None
            assert other.logprobs is not None
            assert other.logprobs.tokens == one.logprobs.tokens
            mine: Any = one.logprobs.token_logprobs
            assert other.logprobs.token_logprobs[1:] == pytest.approx(mine[1:], abs=1e-4)

    def test_a_stream_adds_up_to_the_whole(self, client: openai.OpenAI) -> None:
        given: dict[str, Any] = {**GREEDY, "prompt": TEXT, "echo": True, "logprobs": 1, "n": 2}
        whole = client.completions.create(**given, max_tokens=9)
        parts = [
            chunk.choices[0]
            for chunk in client.completions.create(**given, max_tokens=9, stream=True)
        ]
        for choice in whole.choices:
            mine = [part for part in parts if part.index == choice.index]
            assert "".join(part.text for part in mine) == choice.text
            assert [part.finish_reason for part in mine][-1] == choice.finish_reason
            assert choice.logprobs is not None
            for name in ("tokens", "text_offset"):
                joined = [v for p in mine if p.logprobs for v in getattr(p.logprobs, name)]
                assert joined == getattr(choice.logprobs, name)

    def test_a_release_scores_in_its_own_way(
        self, client: openai.OpenAI, shared: Shared, tiny_base: BaseModel
    ) -> None:
        release = make_bundle(shared.service.workspace.home.bundles, tiny_base, seed=3)
        base, tuned = (
            client.completions.create(
                **{**SCORED, "model": model}, prompt=TEXT, logprobs=0
            ).choices[0]
            for model in ("base", release)
        )
        assert base.logprobs is not None
        assert tuned.logprobs is not None
        assert base.logprobs.tokens == tuned.logprobs.tokens
        assert base.logprobs.token_logprobs != tuned.logprobs.token_logprobs


class TestRefusals:
    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({"prompt": None}, "prompt: Field required"),
            ({"prompt": []}, "prompt is an empty list"),
            ({"prompt": ""}, "the prompt has no tokens"),
            ({"prompt": {"a": 1}}, "prompt must be a text, a list of texts"),
            ({"prompt": ["a", 1]}, "prompt must be a text, a list of texts"),
            ({"prompt": [True]}, "prompt must be a text, a list of texts"),
            ({"prompt": [[1, "a"]]}, "prompt must be a text, a list of texts"),
            ({"prompt": [[-1]]}, "the prompt has token -1"),
            ({"prompt": ["a"] * 9, "n": 16}, "prompt has 9 texts; at most 8"),
            ({"best_of": 2}, "best_of is not supported; leave it out, or send the value of n"),
            ({"suffix": "the end"}, "suffix is not supported"),
            ({"response_format": {"type": "json_object"}}, "response_format is not supported"),
            ({"logprobs": 21}, "logprobs: Input should be less than or equal to 20"),
            ({"logprobs": True}, "logprobs: Input should be a valid integer"),
            ({"max_tokens": 0}, "max_tokens 0 needs echo to be true"),
            ({"max_tokens": -1}, "max_new_tokens must be at least 1"),
            ({"temperature": 11}, "temperature must lie in [0, 10]"),
            ({"n": 17}, "n: Input should be less than or equal to 16"),
        ],
    )
    def test_what_cannot_be_served_is_refused_by_name(
        self, shared: Shared, asked: dict[str, Any], said: str
    ) -> None:
        response = httpx.post(f"{shared.url}/v1/completions", json={"prompt": TEXT, **asked})
        assert response.status_code == 400
        assert said in response.json()["error"]["message"]

    def test_what_requests_nothing_is_accepted(self, shared: Shared) -> None:
        nothing = {
            "suffix": "",
            "best_of": None,
            "logprobs": None,
            "stop": None,
            "user": "ann",
            "response_format": {"type": "text"},
        }
        response = httpx.post(f"{shared.url}/v1/completions", json={"prompt": TEXT, **nothing})
        assert response.status_code == 200
        assert response.json()["choices"][0]["logprobs"] is None

    def test_other_refusals_have_statuses_of_their_own(
        self, client: openai.OpenAI, shared: Shared
    ) -> None:
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="sha256:0000", prompt=TEXT)
        for prompt, status in (([5] * 2048, 413), (["a", "\x00"], 422)):
            with pytest.raises(openai.APIStatusError) as refused:
                client.completions.create(model="live", prompt=prompt)
            assert refused.value.status_code == status
        half = httpx.post(f"{shared.url}/v1/completions", content=HALF_A_PAIR, headers=JSON)
        assert half.status_code == 422
        assert "lone surrogate" in half.json()["error"]["message"]


@pytest.mark.parametrize(
    ("tokens", "text", "offsets"),
    [
        (["The", " cat", "."], "The cat.", [0, 3, 7]),
        # SentencePiece's words lose the blank before them
        (["The", "cat", "cat"], "The cat cat", [0, 4, 8]),
        # A character of three tokens, then one of two
        (
            ["a", "\ufffd", "\ufffd", "\ufffd", "b", "\ufffd", "\ufffd", "c"],
            "a你béc",
            [0, 1, 1, 1, 2, 3, 3, 4],
        ),
        # An end token, and text that was cut at a stop string
        (["a", "", "\n", "END"], "a", [0, 1, 1, 1]),
        ([], "", []),
    ],
)
def test_offsets_are_those_of_the_characters_in_the_text(
    tokens: list[str], text: str, offsets: list[int]
) -> None:
    assert token_offsets(tokens, text) == offsets


def test_a_text_whose_reader_leaves_is_ended(played: Played) -> None:
    body = {"prompt": [TEXT, "Say"], "stream": True, "max_tokens": 4000, "echo": True}
    with httpx.stream("POST", f"{played.url}/v1/completions", json=body, timeout=60) as response:
        first = next(line for line in response.iter_lines() if line)
        assert json.loads(first.removeprefix("data: "))["choices"][0]["text"] in (TEXT, "Say")
        assert played.engine.running == 2
    wait_until(lambda: played.engine.active_streams == 0)


def test_a_text_that_fails_says_so_at_the_end_of_its_stream(played: Played) -> None:
    body = {"prompt": TEXT, "stream": True, "max_tokens": 4000}
    with httpx.stream("POST", f"{played.url}/v1/completions", json=body, timeout=60) as response:
        lines = (line for line in response.iter_lines() if line)
        next(lines)
        played.engine.break_off("out of luck")
        *_, last, done = lines
    assert done == "data: [DONE]"
    end = json.loads(last.removeprefix("data: "))
    assert end["choices"][0]["finish_reason"] == "error"
    assert "out of luck" in end["error"]["message"]
