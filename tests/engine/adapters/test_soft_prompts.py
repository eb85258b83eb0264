"""Prefix tuning, prompt tuning and P-tuning are served as peft computes them, beside everyone else.

Bundles are written by peft, and peft's own forward pass and `generate` say what is right.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import pytest
import torch
from safetensors.torch import save_file

from engine.adapters.bundle import open_bundle, publish_bundle
from engine.adapters.slots import AdapterSlots
from engine.adapters.soft_prompt import MAX_VIRTUAL_TOKENS, open_adapter
from engine.errors import EngineFailure, InvalidBundle, Overloaded, PromptTooLong, UnknownId
from engine.fast import FastEngine
from engine.kernels.interface import PAGE_TOKENS
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.models.families import architecture_of
from engine.reference import ReferenceEngine
from engine.request import Failed, ScoreRequest, TextDelta, collect
from engine.serving import scheduler
from engine.serving.commands import Commands
from engine.serving.kv_cache import page_bytes
from engine.storage import folder_of
from tests.helpers import NO_SNAPSHOT, answer, ask, make_bundle
from tests.support.chatglm_weights import write_chatglm1_weights
from tests.support.soft_prompts import KINDS, SoftPeer, make_soft_bundle, write_base

QUESTION, COMPLETION = "Tell me about the river.", "The cat sat on the stone."
STORY = "The cat sat on the warm stone and looked at the water. " * 4  # more than two pages
TOLERANCE = 1e-4
AnyEngine = FastEngine | ReferenceEngine


class Home(NamedTuple):
    """A base model and the folder of its bundles."""

    base: BaseModel
    root: Path

    @functools.cache  # noqa: B019 - a home lives as long as the tests do
    def peer(self, digest: str | None) -> SoftPeer:
        return SoftPeer(self.base, self.root, digest)

    @functools.cache  # noqa: B019
    def make(self, kind: str, tokens: int, seed: int = 0) -> str:
        return make_soft_bundle(self.root, self.base, kind, tokens, seed)

    def load(self, engine: AnyEngine, digest: str) -> None:
        bundle = open_bundle(self.root, digest, self.base)
        engine.load_adapter(digest, bundle.folder)


class Start(Protocol):
    """Starts the fast engine over a home's base; it is closed when the test ends."""

    def __call__(self, home: Home, **settings: Any) -> FastEngine: ...


@pytest.fixture
def start(kernel_cache: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as engines:

        def start(home: Home, **settings: Any) -> FastEngine:
            engine = FastEngine(
                home.base, kernel_cache=kernel_cache, dtype=torch.float32, **settings
            )
            engines.callback(engine.close)
            return engine

        yield start


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Home]:
    made: dict[str, Home] = {}

    def home(family: str) -> Home:
        if family not in made:
            root = tmp_path_factory.mktemp(family)
            made[family] = Home(write_base(root, family), root / "bundles")
        return made[family]

    return home


@pytest.fixture
def llama(homes: Callable[[str], Home]) -> Home:
    return homes("llama")


def score(engine: AnyEngine, digest: str | None, question: str = QUESTION) -> list[float]:
    request = ScoreRequest((Message("user", question),), COMPLETION, digest)
    return list(engine.score([request])[0].token_logprobs)


def text(engine: AnyEngine, digest: str | None, question: str = QUESTION) -> str:
    return answer(engine, question, adapter=digest, max_new_tokens=10).text


def generated(peer: SoftPeer, question: str = QUESTION) -> str:
    """peft's text, without half a last character, which an engine does not show."""
    return peer.generate(question, 10).rstrip("\ufffd")


def assert_far(found: list[float], other: list[float]) -> None:
    """The adapter can be told from another by a wide margin."""
    assert max(abs(a - b) for a, b in zip(found, other, strict=True)) > 0.1


def pages_in_use(engine: FastEngine) -> int:
    """Once the step that runs now is over, and the one after it."""
    engine.loop.call(lambda: None).result()
    used: int = engine.loop.call(lambda: engine.runner.cache.used_pages).result()
    return used


def page_of(home: Home) -> int:
    config = architecture_of(home.base.folder).config
    return page_bytes(config.layer_count, config.heads, torch.float32)


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


class TestSwap:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_running_stream_keeps_its_virtual_tokens_through_swaps(
        self, start: Start, llama: Home, kind: str
    ) -> None:
        a, b = llama.make(kind, 40), llama.make(kind, 12, seed=1)
        lora = make_bundle(llama.root, llama.base)
        engine = start(llama)
        slots = AdapterSlots(engine, llama.base, llama.root)
        options: dict[str, Any] = {"max_new_tokens": 60, "ignore_eos": True}
        slots.activate(a)
        with slots.pin_live() as version:
            expected = answer(engine, QUESTION, adapter=version, **options).text
            stream = engine.submit(ask(QUESTION, adapter=version, **options))
            assert isinstance(next(iter(stream)), TextDelta)
            for other in (b, lora, None, b):
                slots.activate(other)
            assert collect(stream).text == expected
        assert engine.adapters == {b}
        slots.activate(None)
        assert engine.adapters == set()

    def test_a_freed_adapters_pages_come_back_and_it_can_be_loaded_again(
        self, start: Start, llama: Home
    ) -> None:
        digest = llama.make("prompt", 70)
        engine, peer = start(llama), llama.peer(digest)
        for _ in range(3):
            llama.load(engine, digest)
            assert pages_in_use(engine) == 3  # 70 tokens in pages of 32
            assert text(engine, digest) == generated(peer)
            engine.unload_adapter(digest)
            assert pages_in_use(engine) == 0
        with pytest.raises(UnknownId):
            engine.submit(ask(QUESTION, adapter=digest))

    def test_many_who_load_one_at_once_all_get_it_and_it_is_held_once(
        self, start: Start, llama: Home
    ) -> None:
        digest = llama.make("prefix", 45)
        engine, expected = start(llama), generated(llama.peer(digest))
        slots = AdapterSlots(engine, llama.base, llama.root)
        everybody = threading.Barrier(6)

        def held(_: int) -> str:
            everybody.wait()
            with slots.hold(digest):
                said = text(engine, digest)
                everybody.wait()
            return said

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(held, range(6))) == [expected] * 6
        assert engine.adapters == set()
        assert pages_in_use(engine) == 0


class TestRoom:
    def test_virtual_tokens_count_in_the_budget_of_keys_and_values(
        self, start: Start, llama: Home
    ) -> None:
        digest = llama.make("prefix", 40)
        engine = start(llama, kv_cache_bytes=10 * page_of(llama))
        assert engine.context_tokens == 10 * PAGE_TOKENS
        llama.load(engine, digest)
        assert engine.context_tokens == 8 * PAGE_TOKENS
        # What an answer fills at most: the context without the 40 tokens before its prompt
        end = answer(engine, "", adapter=digest, max_new_tokens=1000, ignore_eos=True)
        assert end.prompt_tokens + end.completion_tokens == 8 * PAGE_TOKENS - 40
        long = "word " * 400
        with pytest.raises(PromptTooLong, match=f"the context holds {8 * PAGE_TOKENS - 40}"):
            engine.submit(ask(long, adapter=digest))
        with pytest.raises(PromptTooLong):
            engine.score([ScoreRequest((Message("user", long),), "x", digest)])

    def test_one_that_finds_no_room_is_refused_and_nothing_has_changed(
        self, start: Start, llama: Home
    ) -> None:
        digest, large = llama.make("prompt", 20), llama.make("prompt", 200)
        engine = start(llama, kv_cache_bytes=6 * page_of(llama))
        slots = AdapterSlots(engine, llama.base, llama.root)
        slots.activate(digest)
        before = text(engine, digest)
        with pytest.raises(Overloaded, match="no room for the adapter's 200 virtual tokens"):
            slots.activate(large)
        assert slots.live == digest
        assert engine.adapters == {digest}
        assert text(engine, digest) == before

    def test_an_answer_whose_room_an_adapter_took_is_told_so_and_does_not_wait_for_ever(
        self, start: Start, llama: Home
    ) -> None:
        engine = start(llama, kv_cache_bytes=6 * page_of(llama))
        request = ask(QUESTION, max_new_tokens=1000)
        real, digest = engine.loop.submit, llama.make("prompt", 40)

        def queued_late(sequences: Any) -> None:  # their room was found before the load
            engine.loop.submit = real  # type: ignore[method-assign]
            llama.load(engine, digest)
            real(sequences)

        engine.loop.submit = queued_late  # type: ignore[method-assign]
        (*_, end) = engine.submit(request)
        assert isinstance(end, Failed)
        assert isinstance(end.error, Overloaded)
        assert text(engine, None)


def test_a_call_that_never_ends_does_not_keep_its_caller_waiting() -> None:
    """The watchdog fails what waits while the call still runs; its late result counts no more."""
    commands = Commands()
    future = commands.put(lambda: commands.fail(EngineFailure("the engine hangs")))
    later = commands.put(lambda: None)
    commands.run_one()
    for each in (future, later):
        with pytest.raises(EngineFailure, match="hangs"):
            each.result(timeout=0)
    assert not commands


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "changed", "problem"),
        [
            ("prompt", {"num_virtual_tokens": MAX_VIRTUAL_TOKENS + 1}, "num_virtual_tokens is 513"),
            ("prompt", {"num_virtual_tokens": True}, "num_virtual_tokens is True"),
            ("prompt", {"num_virtual_tokens": 3}, "shape (4, 64), not (3, 64)"),
            ("p-tuning", {"token_dim": 32}, "token_dim is 32, not 64"),
            ("prefix", {"token_dim": 64}, "token_dim is 64, not 32"),
            ("prefix", {"num_attention_heads": 4}, "num_attention_heads is 4, not 2"),
            ("prefix", {"num_layers": 3}, "num_layers is 3, not 2"),
            ("prefix", {"task_type": "SEQ_2_SEQ_LM"}, "task_type is 'SEQ_2_SEQ_LM'"),
            ("prompt", {"num_transformer_submodules": 2}, "num_transformer_submodules is 2"),
            ("prompt", {"modules_to_save": ["lm_head"]}, "modules_to_save is not supported"),
            ("prompt", {"auto_mapping": {"x": "y"}}, "auto_mapping is not supported"),
            ("prompt", {"peft_type": "PREFIX_TUNING"}, "token_dim is 64, not 32"),
        ],
        ids=str,
    )
    def test_a_configuration_that_does_not_fit_is_refused_by_its_field(
        self, llama: Home, kind: str, changed: dict[str, Any], problem: str
    ) -> None:
        digest = make_soft_bundle(llama.root, llama.base, kind, 4, **changed)
        with pytest.raises(InvalidBundle) as refused:
            open_bundle(llama.root, digest, llama.base)
        assert problem in str(refused.value)

    @pytest.mark.parametrize("kind", ["prefix", "prompt"])
    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (lambda t: {k: v * float("nan") for k, v in t.items()}, "NaN or infinite"),
            (lambda t: {k: v * 1e4 for k, v in t.items()}, "over the limit"),
            (lambda t: {k: v[:, :-1].contiguous() for k, v in t.items()}, "has shape"),
            (lambda t: {k: v.long() for k, v in t.items()}, "holds torch.int64"),
            (lambda t: t | {"extra": torch.zeros(1)}, "extra is not a soft prompt's tensor"),
            (lambda _: {"other": torch.zeros(1)}, "holds no prompt_embeddings"),
        ],
    )
    def test_weights_that_are_no_soft_prompt_of_this_base_are_refused(
        self, llama: Home, kind: str, change: Callable[[Any], Any], problem: str
    ) -> None:
        digest = make_soft_bundle(llama.root, llama.base, kind, 4, tensors=change)
        with pytest.raises(InvalidBundle) as refused:
            open_bundle(llama.root, digest, llama.base)
        assert problem in str(refused.value)

    def test_one_for_another_base_is_refused(self, llama: Home, homes: Any) -> None:
        digest = llama.make("prompt", 4)
        with pytest.raises(InvalidBundle, match="trained for another base model"):
            open_bundle(llama.root, digest, homes("qwen2").base)

    def test_a_model_that_reads_a_prompt_both_ways_says_why_it_takes_no_embeddings(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "chatglm"
        folder.mkdir()
        write_chatglm1_weights(folder, heads=4, hidden=64, inner=128, layers=2, eps=1e-5)
        base = BaseModel("chatglm", folder, "sha256:" + "1" * 64)

        def write(into: Path) -> None:
            (into / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
            save_file({"prompt_embeddings": torch.zeros(4, 64)}, into / "adapter_model.safetensors")

        given = {"base_digest": base.digest, "snapshot": NO_SNAPSHOT}
        digest = publish_bundle(tmp_path / "bundles", write, given)
        with pytest.raises(InvalidBundle, match="reads its prompt both ways"):
            open_bundle(tmp_path / "bundles", digest, base)
        host: Any = SimpleNamespace(base=folder)
        with pytest.raises(InvalidBundle, match="reads its prompt both ways"):
            open_adapter(digest, folder_of(tmp_path / "bundles", digest), host)
