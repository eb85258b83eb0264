"""Published folders are whole, named by their content, and nothing is ever found outside a root."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidInput, StorageFull
from engine.storage import (
    LOCK_SUFFIX,
    canonical_json,
    digest_json,
    folder_of,
    list_digests,
    new_folder,
    publish,
    read_manifest,
    sweep,
    verify,
    write_atomically,
)
from tests.engine.published import fill


class TestCanonicalJson:
    def test_a_value_has_one_form_whatever_the_order_of_its_keys(self) -> None:
        expected = '{"a":[1,2.5,null,true],"ü":"你"}'.encode()
        assert canonical_json({"ü": "你", "a": [1, 2.5, None, True]}) == expected

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
    def test_numbers_that_json_does_not_have_are_refused(self, number: float) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            canonical_json({"x": number})

    def test_the_digest_is_the_tagged_sha256_of_that_form(self) -> None:
        expected = "sha256:" + hashlib.sha256(b'{"a":1,"b":2}').hexdigest()
        assert digest_json({"b": 2, "a": 1}) == expected


class TestPublishing:
    def test_the_id_is_the_digest_of_the_manifest_which_describes_each_file(
        self, root: Path
    ) -> None:
        digest = publish(root, fill)
        manifest = read_manifest(folder_of(root, digest))
        assert digest == digest_json(manifest)
        assert manifest == {
            "format": "test/1",
            "files": {
                "deep/weights.bin": {
                    "sha256": "sha256:" + hashlib.sha256(b"weights" * 100).hexdigest(),
                    "bytes": 700,
                },
                "note.txt": {
                    "sha256": "sha256:" + hashlib.sha256(b"hello").hexdigest(),
                    "bytes": 5,
                },
            },
        }

    def test_the_same_content_published_twice_is_there_once(self, root: Path) -> None:
        first, second = publish(root, fill), publish(root, fill)
        assert first == second
        assert [p.name for p in root.iterdir()] == [first.removeprefix("sha256:")]
        assert verify(root, first) == []

    def test_one_changed_byte_makes_another_id(self, root: Path) -> None:
        def changed(folder: Path) -> dict[str, Any]:
            manifest = fill(folder)
            (folder / "note.txt").write_bytes(b"hellp")
            return manifest

        assert publish(root, changed) != publish(root, fill)

    def test_what_fill_raises_comes_through_and_leaves_nothing(self, root: Path) -> None:
        def failing(folder: Path) -> dict[str, Any]:
            fill(folder)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            publish(root, failing)
        assert list(root.iterdir()) == []


class FailingDisk:
    """Counts file operations; from the k-th on, or only at it, the disk is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, k: int, *, for_ever: bool) -> None:
        self.count = 0
        self.failed = False
        self._k, self._for_ever = k, for_ever
        for name in ("mkdir", "open", "fsync", "rename", "replace", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))
        monkeypatch.setattr(io, "open", self._counted(self._opened(io.open)))

    def tick(self) -> None:
        self.count += 1
        if self.count == self._k or (self._for_ever and self.count > self._k):
            self.failed = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _counted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            self.tick()
            return operation(*arguments, **options)

        return wrapper

    def _opened(self, real_open: Callable[..., Any]) -> Callable[..., Any]:
        """Files opened for writing can fail half-way through a write."""
        disk = self

        class Writer(io.BufferedWriter):
            def write(self, data: Any) -> int:
                try:
                    disk.tick()
                except OSError:
                    super().write(bytes(data)[: len(data) // 2])
                    raise
                return super().write(data)

        def wrapper(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if mode == "wb":
                return Writer(io.FileIO(path, "wb", closefd=options.get("closefd", True)))
            return real_open(path, mode, *arguments, **options)

        return wrapper


def without_locks(folder: Path) -> list[str]:
    """What is in a folder, but for an empty lock that could not be deleted."""
    return [path.name for path in folder.iterdir() if path.suffix != LOCK_SUFFIX]


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "from_then_on"])
def test_a_full_disk_at_any_file_operation_of_publishing_leaves_nothing_or_the_whole(
    tmp_path: Path, for_ever: bool
) -> None:
    whole = publish(tmp_path / "reference", fill)
    outcomes: list[list[str]] = []
    for k in itertools.count(1):
        root = tmp_path / f"full-at-{k}"
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = FailingDisk(monkeypatch, k, for_ever=for_ever)
            with contextlib.suppress(StorageFull):  # any other error fails the test
                publish(root, fill)
        if not disk.failed:
            break
        visible = list_digests(root)
        assert visible in ([], [whole]), k
        assert all(verify(root, digest) == [] for digest in visible), k
        if not for_ever and root.is_dir():
            assert len(without_locks(root)) == len(visible), f"{k}: something is left behind"
        outcomes.append(visible)
        sweep(root)
        assert publish(root, fill) == whole, f"{k}: publishing does not work afterwards"
        assert [p.name for p in root.iterdir()] == [whole.removeprefix("sha256:")]
    assert outcomes.count([]) > 20, "too few operations were counted to mean anything"
    assert [whole] in outcomes, "the failure after the rename was not tried"


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "from_then_on"])
def test_a_full_disk_at_any_file_operation_of_filling_a_new_folder_leaves_nothing_or_the_whole(
    tmp_path: Path, for_ever: bool
) -> None:
    failures = 0
    for k in itertools.count(1):
        target = tmp_path / f"full-at-{k}" / "out"
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = FailingDisk(monkeypatch, k, for_ever=for_ever)
            with contextlib.suppress(StorageFull), new_folder(target) as folder:
                fill(folder)
        if not disk.failed:
            break
        if target.exists():
            assert (target / "deep" / "weights.bin").read_bytes() == b"weights" * 100, k
            assert (target / "note.txt").read_bytes() == b"hello", k
        elif not for_ever and target.parent.exists():
            assert not without_locks(target.parent), f"{k}: something is left behind"
        failures += 1
    assert failures > 10, "too few operations were counted to mean anything"


def test_a_folder_that_exists_is_not_filled_anew(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(InvalidInput, match="exists already"), new_folder(tmp_path / "mine"):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_or_read_only_disk_is_called_that(root: Path, code: int) -> None:
    def failing(folder: Path) -> dict[str, Any]:
        raise OSError(code, os.strerror(code))

    with pytest.raises(StorageFull, match=os.strerror(code)):
        publish(root, failing)


def test_other_errors_of_the_disk_are_not_called_a_full_disk(root: Path) -> None:
    def failing(folder: Path) -> dict[str, Any]:
        raise PermissionError(errno.EACCES, "denied")

    with pytest.raises(PermissionError):
        publish(root, failing)


def test_a_replaced_file_is_old_or_new_when_the_disk_fills_up(tmp_path: Path) -> None:
    path, old, new = tmp_path / "pointer.json", b"old" * 50, b"new" * 50
    outcomes: list[bytes] = []
    for k in itertools.count(1):
        path.write_bytes(old)
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = FailingDisk(monkeypatch, k, for_ever=False)
            with contextlib.suppress(StorageFull):
                write_atomically(path, new)
        if not disk.failed:
            break
        outcomes.append(path.read_bytes())
    assert path.read_bytes() == new
    assert set(outcomes) <= {old, new}
    assert outcomes.count(old) >= 4  # open, write, fsync, replace


class TestVerify:
    @pytest.fixture
    def digest(self, root: Path) -> str:
        return publish(root, fill)

    @pytest.fixture
    def folder(self, root: Path, digest: str) -> Path:
        return folder_of(root, digest)

    def test_a_folder_as_it_was_published_has_no_problems(self, root: Path, digest: str) -> None:
        assert verify(root, digest) == []

    def test_truncated_changed_missing_and_extra_files_are_all_named(
        self, root: Path, digest: str, folder: Path
    ) -> None:
        (folder / "deep" / "weights.bin").write_bytes(b"weights" * 99)
        (folder / "note.txt").unlink()
        (folder / "extra.txt").write_bytes(b"")
        assert verify(root, digest) == [
            "deep/weights.bin differs from its sha256",
            "extra.txt is not in the manifest",
            "note.txt is missing",
        ]

    def test_a_changed_byte_of_the_same_length_is_named(
        self, root: Path, digest: str, folder: Path
    ) -> None:
        (folder / "note.txt").write_bytes(b"hallo")
        assert verify(root, digest) == ["note.txt differs from its sha256"]

    def test_a_manifest_rewritten_to_match_changed_files_does_not_match_the_id(
        self, root: Path, digest: str, folder: Path
    ) -> None:
        text = (folder / "manifest.json").read_text().replace("test/1", "test/2")
        (folder / "manifest.json").write_text(text)
        assert verify(root, digest) == ["manifest.json does not match the id"]

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
    def test_a_manifest_that_cannot_be_read_is_a_problem_not_a_crash(
        self, root: Path, digest: str, folder: Path, content: bytes
    ) -> None:
        (folder / "manifest.json").write_bytes(content)
        [problem] = verify(root, digest)
        assert "manifest" in problem

    def test_a_symbolic_link_is_a_problem_even_to_the_same_bytes(
        self, root: Path, digest: str, folder: Path
    ) -> None:
        elsewhere = root.parent / "elsewhere"
        shutil.move(folder / "note.txt", elsewhere)
        (folder / "note.txt").symlink_to(elsewhere)
        assert "the folder is or contains a symbolic link" in verify(root, digest)


def test_two_who_publish_the_same_at_once_both_get_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier, real_rename = threading.Barrier(2), Path.rename

    def rename(path: Path, target: Path) -> Path:  # both have seen that the target does not exist
        barrier.wait(5)
        return real_rename(path, target)

    def fill(folder: Path) -> dict[str, Any]:
        (folder / "a").write_bytes(b"x")
        return {"format": "t"}

    monkeypatch.setattr(Path, "rename", rename)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(publish, tmp_path, fill) for _ in range(2)]
    assert len({f.result() for f in futures}) == 1


def test_an_extra_manifest_in_a_subfolder_is_named(tmp_path: Path) -> None:
    digest = publish(tmp_path, lambda folder: {})
    (folder_of(tmp_path, digest) / "sub").mkdir()
    (folder_of(tmp_path, digest) / "sub" / "manifest.json").write_bytes(b"anything")
    assert verify(tmp_path, digest)


def test_a_reformatted_manifest_is_a_problem(tmp_path: Path) -> None:
    digest = publish(tmp_path, lambda folder: {})
    file = folder_of(tmp_path, digest) / "manifest.json"
    file.write_bytes(b" " + file.read_bytes() + b"\n")
    assert verify(tmp_path, digest)
