"""Adapters are swapped while people chat: no stream fails, none mixes versions, nothing leaks."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError, InvalidBundle, UnknownId
from engine.models.catalogue import BaseModel
from engine.request import Finished, TextDelta
from tests.helpers import answer, ask, make_bundle
from tests.support.engines import Adapters, AnyEngine
from tests.support.waiting import wait_until

QUESTIONS = ("Tell me about the river.", "sea", "What is the answer?", "Why?")


@pytest.fixture
def slots(engine: AnyEngine, tiny_base: BaseModel, adapters: Adapters) -> AdapterSlots:
    return AdapterSlots(engine, tiny_base, adapters.root)


def said(engine: AnyEngine, question: str, version: str | None) -> str:
    """A short greedy answer of a version."""
    return answer(engine, question, adapter=version, max_new_tokens=12).text


def said_alone(
    engine: AnyEngine, slots: AdapterSlots, versions: tuple[str | None, ...]
) -> dict[tuple[str | None, str], str]:
    """What each version answers to each question when it is alone."""
    texts = {}
    for version in versions:
        with slots.hold(version):
            for question in QUESTIONS:
                texts[version, question] = said(engine, question, version)
    for question in QUESTIONS:
        different = {texts[version, question] for version in versions}
        assert len(different) == len(versions), "the versions cannot be told apart"
    return texts


class Chats:
    """What people have asked so far, and what they were answered."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []  # the version each question went to
        self.answered: list[tuple[str | None, str, str]] = []  # version, question, text

    def wait_for_a_question_to(self, version: str | None, since: int) -> None:
        wait_until(lambda: version in self.asked[since:], seconds=60)


@contextmanager
def people_chatting(engine: AnyEngine, slots: AdapterSlots, people: int) -> Iterator[Chats]:
    """`people` threads ask one question after another until the block ends."""
    stop = threading.Event()
    chats = Chats()

    def chat(number: int) -> None:
        for question in itertools.islice(itertools.cycle(QUESTIONS), number, None):
            with slots.pin_live() as version:
                chats.asked.append(version)
                text = said(engine, question, version)
            chats.answered.append((version, question, text))
            if stop.is_set():
                return

    with ThreadPoolExecutor(people) as pool:
        futures = [pool.submit(chat, number) for number in range(people)]
        try:
            yield chats
        finally:
            stop.set()
        for future in futures:
            future.result()  # raises what any of them was answered instead of a text


class TestActivation:
    def test_an_activated_adapter_answers_until_the_base_is_back(
        self, engine: AnyEngine, slots: AdapterSlots, adapters: Adapters
    ) -> None:
        alone = said_alone(engine, slots, (None, adapters.a, adapters.b))
        for version in (adapters.a, adapters.b, None, adapters.a, adapters.a):
            slots.activate(version)
            assert slots.live == version
            with slots.pin_live() as pinned:
                assert pinned == version
                text = said(engine, "Why?", pinned)
            assert text == alone[version, "Why?"]

    def test_an_adapter_is_freed_once_no_stream_uses_it(
        self, engine: AnyEngine, slots: AdapterSlots, adapters: Adapters
    ) -> None:
        slots.activate(adapters.a)
        with slots.pin_live() as outer:
            with slots.pin_live():
                slots.activate(adapters.b)
                assert slots.live == adapters.b
                assert engine.adapters == {adapters.a, adapters.b}
            assert engine.adapters == {adapters.a, adapters.b}
            assert answer(engine, "Why?", adapter=outer).text
        assert engine.adapters == {adapters.b}
        slots.activate(None)
        assert engine.adapters == set()

    def test_a_running_stream_keeps_the_adapter_it_began_with(
        self, engine: AnyEngine, slots: AdapterSlots, adapters: Adapters
    ) -> None:
        options: dict[str, Any] = {"max_new_tokens": 60, "ignore_eos": True}
        slots.activate(adapters.a)
        with slots.pin_live() as version:
            expected = answer(engine, "Why?", adapter=version, **options)
            stream = engine.submit(ask("Why?", adapter=version, **options))
            assert isinstance(next(iter(stream)), TextDelta)
            slots.activate(adapters.b)
            slots.activate(None)
            slots.activate(adapters.b)
            assert list(stream)[-1] == expected

    def test_a_held_adapter_is_loaded_for_the_block_and_does_not_become_live(
        self, engine: AnyEngine, slots: AdapterSlots, adapters: Adapters
    ) -> None:
        slots.activate(adapters.a)
        with slots.hold(adapters.b) as held, slots.hold(adapters.a), slots.hold(None) as none:
            assert held == adapters.b
            assert none is None
            assert slots.live == adapters.a
            assert engine.adapters == {adapters.a, adapters.b}
        assert engine.adapters == {adapters.a}

    def test_a_release_is_pinned_by_its_name(
        self, engine: AnyEngine, slots: AdapterSlots, adapters: Adapters
    ) -> None:
        slots.activate(adapters.a)
        named = {"live": adapters.a, "base": None, adapters.b: adapters.b}
        for name, digest in (*named.items(), (adapters.b[7:19], adapters.b)):
            with slots.pin(name) as pinned:
                assert pinned == digest
                assert answer(engine, "Why?", adapter=pinned).text
        with pytest.raises(UnknownId):
            slots.pin("nothing")
        assert engine.adapters == {adapters.a}

    def test_of_activations_at_once_the_last_one_stays_and_nothing_else_is_loaded(
        self, engine: AnyEngine, slots: AdapterSlots, adapters: Adapters
    ) -> None:
        versions = [adapters.a, adapters.b, None] * 4
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(slots.activate, versions))
        assert slots.live in versions
        assert engine.adapters == {slots.live} - {None}

    def test_many_who_hold_one_adapter_at_once_all_get_it(
        self, engine: AnyEngine, slots: AdapterSlots, adapters: Adapters
    ) -> None:
        with slots.hold(adapters.a):
            expected = answer(engine, "Why?", adapter=adapters.a).text

        def held_answer(_: int) -> str:
            with slots.hold(adapters.a) as version:
                return answer(engine, "Why?", adapter=version).text

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(held_answer, range(24))) == [expected] * 24
        assert engine.adapters == set()


def test_30_swaps_under_20_people_fail_no_stream_and_mix_no_versions(
    kind: str, engine: AnyEngine, slots: AdapterSlots, adapters: Adapters
) -> None:
    swaps, people = (30, 20) if kind == "fast" else (9, 6)  # the other one is far slower
    versions = (None, adapters.a, adapters.b)
    alone = said_alone(engine, slots, versions)
    with people_chatting(engine, slots, people) as chats:
        for version in itertools.islice(itertools.cycle((adapters.a, adapters.b, None)), swaps):
            before = len(chats.asked)
            slots.activate(version)
            assert slots.live == version
            chats.wait_for_a_question_to(version, since=before)
    assert len(chats.answered) == len(chats.asked) >= swaps
    wrong = [got for got in chats.answered if got[2] != alone[got[0], got[1]]]
    assert wrong == []
    assert slots.live is None
    assert engine.adapters == set()
    assert all(said(engine, q, None) == alone[None, q] for q in QUESTIONS)


def doctored_bundles(root: Path, base: BaseModel) -> list[str]:
    """Ten bundles that must not be served, each for another reason."""

    def poisoned(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {key: tensor * float("nan") for key, tensor in tensors.items()}

    def truncated(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])

    makers: list[dict[str, Any]] = [
        {"doctor": poisoned},
        {"doctor": lambda tensors: dict(list(tensors.items())[:-1])},
        {"doctor": lambda tensors: {k: t[:, :2].contiguous() for k, t in tensors.items()}},
        {"scale": 1e6},
        {"config": {"use_dora": True}},
        {"config": {"r": 100_000}},
        {"config": {"lora_alpha": float("inf")}},
        {"manifest": {"base_digest": "another"}},
        {"write_more": truncated},
        {"write_more": lambda folder: (folder / "adapter_model.bin").write_bytes(b"x")},
    ]
    return [make_bundle(root, base, **maker) for maker in makers]


def test_50_bad_loads_while_people_chat_hurt_nobody_and_a_good_one_works_after(
    kind: str, engine: AnyEngine, slots: AdapterSlots, adapters: Adapters, tiny_base: BaseModel
) -> None:
    rounds = 5 if kind == "fast" else 1  # the other one is far slower
    alone = said_alone(engine, slots, (None, adapters.a, adapters.b))
    bad = doctored_bundles(adapters.root, tiny_base)
    slots.activate(adapters.a)
    with people_chatting(engine, slots, people=4) as chats:
        for digest in bad * rounds:
            with pytest.raises(InvalidBundle):
                slots.activate(digest)
            assert slots.live == adapters.a
            assert engine.adapters == {adapters.a}
    assert len(chats.answered) >= 4
    assert all(alone[adapters.a, question] == text for _, question, text in chats.answered)
    slots.activate(adapters.b)
    assert said(engine, "Why?", adapters.b) == alone[adapters.b, "Why?"]


@pytest.mark.parametrize("load", [AdapterSlots.activate, lambda s, d: s.hold(d).__enter__()])
def test_an_id_that_is_none_or_names_nothing_is_refused_and_changes_nothing(
    engine: AnyEngine,
    slots: AdapterSlots,
    adapters: Adapters,
    load: Callable[[AdapterSlots, str], object],
) -> None:
    for name in ("../x", "/etc/passwd", "owner/name", "a\x00b", adapters.a[:20]):
        with pytest.raises(UnknownId):
            load(slots, name)
    with pytest.raises(InvalidBundle):
        load(slots, "sha256:" + "0" * 64)
    assert slots.live is None
    assert engine.adapters == set()


def test_an_adapter_the_engine_cannot_run_does_not_become_live(
    engine: AnyEngine, slots: AdapterSlots, adapters: Adapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answer(engine, "Why?")
    real_forward = engine.runner.run

    def fails_with_an_adapter(*arguments: Any, **options: Any) -> Any:
        if engine.adapters:
            raise RuntimeError("no kernel for this")
        return real_forward(*arguments, **options)

    monkeypatch.setattr(engine.runner, "run", fails_with_an_adapter)
    with pytest.raises(BurnishError, match="no kernel for this"):
        slots.activate(adapters.a)
    assert slots.live is None
    assert engine.adapters == set()
    assert isinstance(expected, Finished)
    assert answer(engine, "Why?") == expected
    monkeypatch.undo()
    slots.activate(adapters.a)
    assert slots.live == adapters.a


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_adapter_never_changes_the_base_model(
    engine: AnyEngine, tiny_base: BaseModel, adapters: Adapters, init: str
) -> None:
    before = answer(engine, "Why?")
    slots = AdapterSlots(engine, tiny_base, adapters.root)
    digest = make_bundle(adapters.root, tiny_base, config={"init_lora_weights": init})
    with contextlib.suppress(InvalidBundle):
        slots.activate(digest)
    assert answer(engine, "Why?") == before
    slots.activate(None)
    assert answer(engine, "Why?") == before
