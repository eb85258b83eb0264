"""Artefacts travel whole or not at all, whatever the object store does meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.remote_tuning.objects import PAUSES, ObjectStore
from engine.errors import InvalidInput, PeerUnavailable, UnknownId
from engine.storage import MANIFEST, folder_of, list_digests, publish, verify


def fill(folder: Path) -> dict[str, Any]:
    (folder / "deep").mkdir()
    (folder / "deep" / "train.jsonl").write_text('{"question": "海？"}\n')
    (folder / "weights").write_bytes(bytes(range(256)) * 512)
    return {"kind": "test"}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here" / "snapshots"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there" / "snapshots"


@pytest.fixture
def digest(here: Path) -> str:
    return publish(here, fill)


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that were made."""
    return []


@pytest.fixture
def objects(url: str, pauses: list[float]) -> ObjectStore:
    return ObjectStore(url, sleep=pauses.append)


def failing(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch, method: str, times: int
) -> list[str]:
    """Let the driver's method fail so many times; returns the paths that it was called with."""
    works, calls = getattr(objects._files, method), []

    def call(first: str, *rest: Any, **named: Any) -> Any:
        calls.append(first)
        if len(calls) <= times:
            raise ConnectionResetError("cut off")
        return works(first, *rest, **named)

    monkeypatch.setattr(objects._files, method, call)
    return calls


def test_what_was_put_is_fetched_whole_elsewhere_and_gone_when_it_was_removed(
    objects: ObjectStore, here: Path, there: Path, digest: str
) -> None:
    objects.put(here, digest)
    objects.put(here, digest)  # again: it is there
    objects.fetch(there, digest)
    objects.fetch(there, digest)
    assert verify(there, digest) == []
    objects.remove(there, digest)
    objects.remove(there, digest)
    with pytest.raises(UnknownId, match="does not have it"):
        objects.fetch(there.parent / "snapshots-again", digest)


def test_a_short_fault_is_waited_out(
    objects: ObjectStore,
    here: Path,
    there: Path,
    digest: str,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(objects, monkeypatch, "put_file", 2)
    objects.put(here, digest)
    failing(objects, monkeypatch, "get_file", 1)
    objects.fetch(there, digest)
    assert pauses == [0.5, 1.0, 0.5]
    assert verify(there, digest) == []


@pytest.mark.parametrize("uploaded", [0, 1, 2])
def test_an_upload_that_is_broken_off_is_invisible_and_is_repeated(
    objects: ObjectStore,
    here: Path,
    there: Path,
    digest: str,
    uploaded: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    works = objects._files.put_file

    def until(path: str, target: str) -> None:
        if Path(path).name == (["train.jsonl", "weights", MANIFEST])[uploaded]:
            raise ConnectionResetError("cut off")
        works(path, target)

    with monkeypatch.context() as broken:
        broken.setattr(objects._files, "put_file", until)
        with pytest.raises(PeerUnavailable, match="ConnectionResetError: cut off"):
            objects.put(here, digest)
    with pytest.raises(UnknownId):
        objects.fetch(there, digest)
    objects.put(here, digest)
    objects.fetch(there, digest)
    assert verify(there, digest) == []


def test_what_is_damaged_on_its_way_is_never_published(
    objects: ObjectStore,
    here: Path,
    there: Path,
    digest: str,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects.put(here, digest)
    works = objects._files.get_file

    def damage(source: str, path: str) -> None:
        works(source, path)
        with Path(path).open("r+b") as file:
            file.write(b"\xff")

    monkeypatch.setattr(objects._files, "get_file", damage)
    with pytest.raises(PeerUnavailable, match="differs from its sha256"):
        objects.fetch(there, digest)
    assert pauses == list(PAUSES)
    assert list_digests(there) == [] and list(there.glob("*")) == []


def test_what_is_damaged_here_is_not_uploaded(
    objects: ObjectStore, here: Path, there: Path, digest: str
) -> None:
    (folder_of(here, digest) / "weights").write_bytes(b"bits")
    with pytest.raises(InvalidInput, match="weights differs"):
        objects.put(here, digest)
    with pytest.raises(UnknownId):
        objects.fetch(there, digest)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(
    tmp_path: Path, there: Path, name: str
) -> None:
    from engine.storage import canonical_json, digest_bytes

    manifest = canonical_json({"files": {name: {"sha256": "", "bytes": 0}}})
    digest = digest_bytes(manifest)
    place = folder_of(tmp_path / "objects" / "snapshots", digest)
    place.mkdir(parents=True)
    (place / MANIFEST).write_bytes(manifest)
    with pytest.raises(InvalidInput, match="not the name"):
        ObjectStore(str(tmp_path / "objects")).fetch(there, digest)
    assert list(there.glob("*")) == []


@pytest.mark.parametrize("url", ["nothing://x"])
def test_an_unknown_kind_of_url_is_named(url: str) -> None:
    with pytest.raises(InvalidInput, match="nothing"):
        ObjectStore(url)


def test_a_store_that_is_away_is_called_so_after_the_last_try(
    objects: ObjectStore,
    here: Path,
    digest: str,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(objects, monkeypatch, "exists", 100)
    tries: tuple[Callable[[], None], ...] = (
        lambda: objects.put(here, digest),
        lambda: objects.remove(here, digest),
    )
    for act in tries:
        pauses.clear()
        with pytest.raises(PeerUnavailable, match="does not answer"):
            act()
        assert pauses == list(PAUSES)
