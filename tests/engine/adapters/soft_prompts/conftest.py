"""Base models with bundles of soft prompts that peft wrote, and engines over them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
import torch

from engine.adapters.bundle import open_bundle
from engine.fast import FastEngine
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.models.families import architecture_of
from engine.reference import ReferenceEngine
from engine.request import ScoreRequest
from engine.serving.kv_cache import page_bytes
from tests.helpers import answer
from tests.support.soft_prompts import SoftPeer, make_soft_bundle, write_base

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
