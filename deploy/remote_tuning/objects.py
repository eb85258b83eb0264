"""Artefacts at a URL that fsspec reads: a folder, memory, S3 and others.

An artefact is visible once its manifest is there, which is uploaded last, and each file is compared
with the manifest after its download. So an interrupted upload is invisible and is repeated, and
what was damaged on its way is never published. Knows nothing of jobs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from engine.errors import InvalidInput, PeerUnavailable, UnknownId
from engine.storage import (
    DIGEST,
    MANIFEST,
    digest_bytes,
    digest_file,
    folder_of,
    new_folder,
    read_manifest,
    short_id,
    verify,
)

T = TypeVar("T")
# Between tries, in seconds: doubling, as AWS's "Exponential Backoff And Jitter" (2015) proposes
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)


class ObjectStore:
    """The artefacts under one URL, by the name of their folder in a home and their digest.

    Every method tries again after each of `pauses`, and then raises `PeerUnavailable`.
    """

    def __init__(
        self,
        url: str,
        *,
        pauses: Sequence[float] = PAUSES,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Raises `InvalidInput` for a URL of a kind that is unknown, or whose driver is missing."""
        from fsspec.core import url_to_fs  # takes a tenth of a second

        try:
            self._files, self._root = url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise InvalidInput(f"cannot use the object store's URL: {error}") from error
        self._pauses = pauses
        self._sleep = sleep

    def put(self, root: Path, digest: str) -> None:
        """Upload the artefact of a folder in a home, unless it is there already.

        Raises `InvalidInput` for one that is damaged here.
        """
        if problems := verify(root, digest):
            raise InvalidInput(f"{root.name}/{short_id(digest)} is damaged: {'; '.join(problems)}")
        folder, target = folder_of(root, digest), self._address_of(root, digest)
        if self._with_retries(lambda: self._files.exists(f"{target}/{MANIFEST}")):
            return
        for name in (*sorted(read_manifest(folder)["files"]), MANIFEST):
            self._with_retries(partial(self._upload, folder / name, f"{target}/{name}"))

    def fetch(self, root: Path, digest: str) -> None:
        """Download an artefact into a folder of a home, unless it is there; verifies each file.

        Raises `UnknownId` where there is none.
        """
        folder, source = folder_of(root, digest), self._address_of(root, digest)
        if folder.is_dir():
            return
        document = self._with_retries(lambda: self._manifest(source, digest))
        with new_folder(folder) as temporary:
            for name, facts in json.loads(document)["files"].items():
                path = temporary / _relative_name(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                download = partial(self._download, f"{source}/{name}", path, str(facts["sha256"]))
                self._with_retries(download)
            (temporary / MANIFEST).write_bytes(document)

    def digests(self, root: Path) -> list[str]:
        """Return the digests of what is there of a folder in a home, whole or in part."""
        place = f"{self._root.rstrip('/')}/{root.name}"
        try:
            found = self._with_retries(lambda: self._files.ls(place, detail=False))
        except UnknownId:  # nothing was ever uploaded
            return []
        digests = (f"sha256:{PurePosixPath(str(each)).name}" for each in found)
        return sorted(digest for digest in digests if DIGEST.fullmatch(digest))

    def remove(self, root: Path, digest: str) -> None:
        """Delete an artefact at the URL, its manifest first; there may be none."""
        place = self._address_of(root, digest)

        def delete() -> None:
            if self._files.exists(f"{place}/{MANIFEST}"):
                self._files.rm_file(f"{place}/{MANIFEST}")
            if self._files.exists(place):
                self._files.rm(place, recursive=True)

        self._with_retries(delete)

    def _address_of(self, root: Path, digest: str) -> str:
        return f"{self._root.rstrip('/')}/{root.name}/{folder_of(root, digest).name}"

    def _upload(self, path: Path, target: str) -> None:
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(path), target)

    def _manifest(self, source: str, digest: str) -> bytes:
        document = bytes(self._files.cat_file(f"{source}/{MANIFEST}"))
        if digest_bytes(document) != digest:
            raise OSError("the manifest does not match the id")
        return document

    def _download(self, source: str, path: Path, expected: str) -> None:
        self._files.get_file(source, str(path))
        if digest_file(path) != expected:
            raise OSError(f"{path.name} differs from its sha256")

    def _with_retries(self, act: Callable[[], T]) -> T:
        """Try, and try again after each pause.

        Raises `UnknownId` at once for what is not there.
        """
        for pause in (*self._pauses, None):
            try:
                return act()
            except FileNotFoundError as error:
                raise UnknownId("the object store does not have it") from error
            except Exception as error:  # each driver raises errors of its own
                if pause is None:
                    reason = f"{type(error).__name__}: {error}"
                    raise PeerUnavailable(f"the object store does not answer: {reason}") from error
                self._sleep(pause)
        raise AssertionError("the last try returns or raises")


def _relative_name(name: Any) -> str:
    """A file's name in a manifest; raises `InvalidInput` for one that leads out of its folder."""
    path = PurePosixPath(str(name))
    if path.is_absolute() or ".." in path.parts or str(path) in ("", "."):
        raise InvalidInput(f"not the name of an artefact's file: {str(name)[:80]!r}")
    return str(path)
