"""A crash at any step of forgetting is made good by forgetting again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy import forgetting as forgetting_module
from deploy.forgetting import Receipt
from engine.errors import StorageFull
from engine.home import Home
from engine.models.catalogue import BaseModel
from feedback_store.privacy.erasure import unfinished_erasures
from tests.deploy.homes import HomeInUse, traces
from tests.feedback_store.people import files_with
from tests.support.databases import migrated_sqlite


class Crash(BaseException):
    """Nothing may catch it, as nothing catches a power cut."""


def crash_at(monkeypatch: pytest.MonkeyPatch, home: HomeInUse, place: int) -> list[str]:
    """Let the n-th step of forgetting crash before it does anything; returns the steps so far.

    A folder is half deleted then: without its manifest, nothing lists it any more.
    """
    steps: list[str] = []

    def crashing(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if name == "rmtree" and not arguments[0].exists():
                return None  # nothing is removed
            steps.append(name)
            if len(steps) == place:
                if name == "rmtree":
                    (arguments[0] / "manifest.json").unlink(missing_ok=True)
                raise Crash
            return step(*arguments, **options)

        return run

    for owner, name in (
        (forgetting_module, "rewrite_snapshots"),
        (forgetting_module, "save_erasure"),
        (home.registry, "taint"),
        (home.database, "vacuum"),
        (Path, "rename"),
        (shutil, "rmtree"),
    ):
        monkeypatch.setattr(owner, name, crashing(name, getattr(owner, name)))
    return steps


@pytest.mark.integration
@pytest.mark.parametrize("what", ["person", "conversation"])
def test_a_crash_at_any_step_is_made_good_by_forgetting_again(
    tmp_path: Path, tiny_base: BaseModel, what: str
) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    home = HomeInUse(origin, migrated_sqlite(origin), tiny_base, tmp_path / "models")
    home.people.speaks("bob")
    home.bundle(home.freeze(), 1, promoted=True)
    person = home.people.speaks("ann")
    home.bundle(home.freeze(), 2, promoted=True)
    home.database.close()

    def forget(home: HomeInUse) -> Receipt:
        if what == "person":
            return home.forgetting.forget(person.id)
        return home.forgetting.forget_conversations([person.conversations[0]])

    def left(home: HomeInUse) -> list[str]:
        gone = person.conversations[:1]
        return traces(home, person) if what == "person" else files_with(home.folder, gone)

    outcomes = set()
    for place in range(1, 200):
        folder = tmp_path / f"home-{place}"
        shutil.copytree(origin, folder)
        url = f"sqlite:///{Home(folder).database}"
        home = HomeInUse(folder, url, tiny_base, tmp_path / "models")
        with pytest.MonkeyPatch.context() as patched:
            steps = crash_at(patched, home, place)
            try:
                receipt = forget(home)
                crashed = False
            except Crash:
                crashed = True
        if crashed:
            assert unfinished_erasures(home.database), steps
            receipt = forget(home)
        assert left(home) == [], steps
        assert list(folder.rglob(".tmp-*")) == [], steps
        assert unfinished_erasures(home.database) == []
        outcomes.add((str(receipt), *sorted(home.bundles_left()), *sorted(home.registry.tainted())))
        home.database.close()
        shutil.rmtree(folder)
        if not crashed:
            break
    assert {*steps} == {"rewrite_snapshots", "save_erasure", "taint", "vacuum", "rename", "rmtree"}
    assert len(outcomes) == 1  # whatever crashed, the end is the same


def test_what_a_crash_broke_off_is_finished_before_somebody_else_is_forgotten(
    home: HomeInUse, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = home.people.speaks("ann"), home.people.speaks("bob")
    home.freeze()
    with monkeypatch.context() as patched, pytest.raises(Crash):
        crash_at(patched, home, 1)
        home.forgetting.forget(ann.id)
    # A server that still runs learns at once that the examples are gone
    assert {u for p in home.people.pairs() for u in p.origin.user_ids} == {bob.id}
    assert home.forgetting.forget(bob.id).number == 2
    assert traces(home, ann) == traces(home, bob) == []
    assert home.forgetting.finish() == []


def test_a_full_disk_while_forgetting_is_told_and_made_good_later(
    home: HomeInUse, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = home.people.speaks("ann")

    def full() -> None:
        raise StorageFull("not saved: database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(home.database, "vacuum", full)
        with pytest.raises(StorageFull):
            home.forgetting.forget(person.id)
    (receipt,) = home.forgetting.finish()
    assert receipt.number == 1
    assert traces(home, person) == []
