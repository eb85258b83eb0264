"""The engine over vLLM's servers, against a double of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from engine.adapters.slots import AdapterSlots
from engine.errors import (
    DeadlineExceeded,
    EngineFailure,
    InvalidBundle,
    InvalidInput,
    ModelUnavailable,
    Overloaded,
    PeerUnavailable,
    PromptTooLong,
    UnknownId,
)
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.prompts.interface import ChatRenderer
from engine.prompts.load import load_renderer
from engine.remote.engine import RemoteEngine
from engine.request import (
    EmbeddingRequest,
    Failed,
    GenerationRequest,
    SamplingParams,
    ScoreRequest,
    TextDelta,
    collect,
)
from tests.helpers import make_bundle
from tests.support.vllm_double import VllmDouble, running
from tests.support.waiting import wait_until

HELLO = (Message("user", "Say hello."),)
ADAPTER = "sha256:" + "a" * 64


@pytest.fixture(scope="module")
def renderer(tiny_base: BaseModel) -> ChatRenderer:
    return load_renderer(tiny_base.folder)


@pytest.fixture
def servers(tiny_base: BaseModel, renderer: ChatRenderer) -> Iterator[list[VllmDouble]]:
    with running(tiny_base.digest, 2) as doubles:
        for double in doubles:
            double.ids = list(renderer.completion("The sea is blue."))
        yield doubles


@pytest.fixture
def engine(
    tiny_base: BaseModel, renderer: ChatRenderer, servers: list[VllmDouble]
) -> Iterator[RemoteEngine]:
    urls = [double.url for double in servers]
    engine = RemoteEngine(tiny_base, renderer, urls, max_streams=3, look_seconds=0.05)
    yield engine
    engine.close()


def ask(adapter: str | None = None, **sampling: object) -> GenerationRequest:
    return GenerationRequest(HELLO, SamplingParams(**sampling), adapter)  # type: ignore[arg-type]


def bodies(servers: list[VllmDouble]) -> list[dict[str, object]]:
    return [body for double in servers for body in double.bodies]


# Answers


def test_an_answer_is_asked_in_token_ids_and_read_from_them(
    engine: RemoteEngine, servers: list[VllmDouble], renderer: ChatRenderer, tiny_base: BaseModel
) -> None:
    stream = engine.submit(ask(temperature=0.5, top_p=0.9, top_k=7, seed=3, max_new_tokens=20))
    events = list(stream)
    done = events[-1]
    assert collect_text(events) == "The sea is blue."
    assert (done.reason, done.text) == ("stop", "The sea is blue.")  # type: ignore[union-attr]
    (body,) = bodies(servers)
    assert body["prompt"] == list(renderer.prompt(HELLO))
    assert (body["model"], body["max_tokens"]) == (tiny_base.digest, 20)
    assert (body["temperature"], body["top_p"], body["top_k"], body["seed"]) == (0.5, 0.9, 7, 3)
    assert set(body["stop_token_ids"]) == renderer.end_ids  # type: ignore[call-overload]
    wait_until(lambda: engine.active_streams == 0)


def collect_text(events: Sequence[object]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_greedy_a_limit_and_a_stop_string(engine: RemoteEngine, servers: list[VllmDouble]) -> None:
    assert collect(engine.submit(ask(temperature=0, max_new_tokens=2))).reason == "length"
    stopped = collect(engine.submit(ask(top_p=0, stop=("is",))))
    assert (stopped.reason, stopped.text, stopped.stop_string) == ("stop", "The sea ", "is")
    assert [body["temperature"] for body in bodies(servers)] == [0, 0]


def test_the_servers_take_turns(engine: RemoteEngine, servers: list[VllmDouble]) -> None:
    for _ in range(4):
        collect(engine.submit(ask()))
    assert [len(double.bodies) for double in servers] == [2, 2]


def test_a_cancelled_answer_ends_and_its_request_is_cut_off(
    engine: RemoteEngine, servers: list[VllmDouble]
) -> None:
    for double in servers:
        double.pause.clear()
    stream = engine.submit(ask())
    wait_until(lambda: bodies(servers))
    stream.cancel()
    assert collect(stream).reason == "cancelled"
    wait_until(lambda: any(double.cut_off.is_set() for double in servers))
    assert engine.active_streams == 0


def test_an_answer_past_its_deadline_and_a_full_queue(
    engine: RemoteEngine, servers: list[VllmDouble]
) -> None:
    for double in servers:
        double.pause.clear()
    late = engine.submit(GenerationRequest(HELLO, timeout_seconds=0.05))
    with pytest.raises(DeadlineExceeded):
        collect(late)
    wait_until(lambda: engine.active_streams == 0)
    streams = engine.submit_many([ask()] * 3)
    with pytest.raises(Overloaded):
        engine.submit(ask())
    for stream in streams:
        stream.cancel()
        collect(stream)


def test_what_is_not_served_is_refused_by_its_name(engine: RemoteEngine) -> None:
    with pytest.raises(InvalidInput, match="logprobs: not served"):
        engine.submit(ask(logprobs=1))
    with pytest.raises(InvalidInput, match="echo"):
        engine.submit(GenerationRequest((), prompt="The", echo=True))
    with pytest.raises(InvalidInput, match="embeddings"):
        engine.embed([EmbeddingRequest("The")])
    with pytest.raises(UnknownId):
        engine.submit(ask(ADAPTER))
    with pytest.raises(PromptTooLong):
        engine.submit(GenerationRequest((Message("user", "sea " * 300),)))


@pytest.mark.parametrize("a_request", [128, 2])
def test_a_score_is_that_of_the_completions_tokens(
    engine: RemoteEngine,
    servers: list[VllmDouble],
    renderer: ChatRenderer,
    monkeypatch: pytest.MonkeyPatch,
    a_request: int,
) -> None:
    monkeypatch.setattr("engine.remote.completion.MAX_LOGPROB_TOKEN_IDS", a_request)
    (score,) = engine.score([ScoreRequest(HELLO, "The sea.")])
    rendered = renderer.pair(HELLO, "The sea.")
    first, count = len(rendered.prompt_ids), len(rendered.completion_ids)
    assert score.token_logprobs == tuple(-0.5 - at for at in range(first, first + count))
    asked = [prompt for body in bodies(servers) for prompt in body["prompt"]]  # type: ignore[attr-defined]
    expected = [list(rendered.input_ids[:at]) for at in range(first, first + count)]
    assert sorted(asked, key=len) == expected
    assert len(bodies(servers)) == -(-count // a_request)


# Servers that are away


def test_a_server_that_cannot_be_reached_is_passed_over(
    engine: RemoteEngine, servers: list[VllmDouble]
) -> None:
    servers[0].stop()
    for _ in range(3):
        assert collect(engine.submit(ask())).text == "The sea is blue."
    servers[1].stop()
    wait_until(lambda: not engine.alive)
    with pytest.raises(EngineFailure, match="no server"):
        engine.submit(ask())


def test_a_server_that_calls_itself_ill_is_not_asked_until_it_is_well(
    engine: RemoteEngine, servers: list[VllmDouble]
) -> None:
    for double in servers:
        double.is_ill = True
    wait_until(lambda: not engine.alive)
    servers[1].is_ill = False
    wait_until(lambda: engine.alive)
    collect(engine.submit(ask()))
    assert [len(double.bodies) for double in servers] == [0, 1]


def test_an_answer_that_breaks_off_fails_and_keeps_its_text(
    engine: RemoteEngine, servers: list[VllmDouble]
) -> None:
    for double in servers:
        double.breaks_after = 2
    events = list(engine.submit(ask()))
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, EngineFailure)
    assert events[-1].text == collect_text(events)


def test_another_model_and_a_server_that_is_away_are_said_at_the_start(
    tiny_base: BaseModel, renderer: ChatRenderer
) -> None:
    with running("sha256:other") as (double,), pytest.raises(ModelUnavailable, match="--served"):
        RemoteEngine(tiny_base, renderer, [double.url], max_streams=1)
    with pytest.raises(PeerUnavailable, match="does not answer"):
        RemoteEngine(tiny_base, renderer, [double.url], max_streams=1)
    with pytest.raises(InvalidInput, match="needs the URL"):
        RemoteEngine(tiny_base, renderer, [], max_streams=1)


# Adapters


def test_an_adapter_is_loaded_into_every_server_before_it_is_live(
    engine: RemoteEngine, servers: list[VllmDouble], tiny_base: BaseModel, tmp_path: Path
) -> None:
    bundles = tmp_path / "bundles"
    bundle = make_bundle(bundles, tiny_base)
    slots = AdapterSlots(engine, tiny_base, bundles)
    slots.activate(bundle)
    folder = str(bundles / bundle.removeprefix("sha256:"))
    assert [double.adapters for double in servers] == [{bundle: folder}] * 2
    with slots.pin_live() as adapter:
        slots.activate(None)
        assert servers[0].adapters, "it is unloaded when nobody uses it"
        assert collect(engine.submit(ask(adapter))).text == "The sea is blue."
    assert [double.adapters for double in servers] == [{}, {}]
    assert bodies(servers)[-1]["model"] in (bundle, tiny_base.digest)


def test_an_adapter_that_one_server_refuses_is_live_on_none(
    engine: RemoteEngine, servers: list[VllmDouble], tiny_base: BaseModel, tmp_path: Path
) -> None:
    servers[1].refuses = "LoRA rank 64 is greater than max_lora_rank 16"
    bundle = make_bundle(tmp_path / "bundles", tiny_base)
    slots = AdapterSlots(engine, tiny_base, tmp_path / "bundles")
    with pytest.raises(InvalidBundle, match="max_lora_rank 16"):
        slots.activate(bundle)
    assert slots.live is None
    assert [double.adapters for double in servers] == [{}, {}]


def test_a_server_that_dies_during_an_activation_gets_the_adapter_before_it_is_asked_again(
    engine: RemoteEngine, servers: list[VllmDouble]
) -> None:
    servers[0].stop()
    engine.load_adapter(ADAPTER, Path("/bundles/a"))
    for _ in range(3):
        collect(engine.submit(ask(ADAPTER)))
    assert [len(double.bodies) for double in servers] == [0, 3]
    servers[0].start()
    wait_until(lambda: ADAPTER in servers[0].adapters)
    wait_until(lambda: collect(engine.submit(ask(ADAPTER))) and servers[0].bodies)
    servers[1].stop()
    assert collect(engine.submit(ask(ADAPTER))).text == "The sea is blue."
