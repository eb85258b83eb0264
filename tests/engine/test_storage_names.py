"""No name leads outside a root, and no link does."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UnknownId
from engine.storage import find_digest, folder_of, list_digests, publish, short_id, verify
from tests.engine.published import fill

HOSTILE = (
    "../x",
    "..",
    ".",
    "",
    "/etc/passwd",
    "sha256:../../etc",
    "sha256:" + "../" * 20 + "aa",
    "%2e%2e%2fx",
    "sha256:%2e%2e%2f" + "a" * 56,
    "a\x00b",
    "sha256:" + "a" * 63 + "\x00",
    "HuggingFaceTB/SmolLM2-135M",
    "sha256:" + "A" * 64,
    "sha256:" + "a" * 64 + "\n",
    "sha256:" + "a" * 65,
    "sha512:" + "a" * 64,
    "~",
    "C:\\x",
    "manifest.json",
    ".tmp-abc",
)


class TestNames:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_what_is_not_a_digest_names_no_folder(self, root: Path, name: str) -> None:
        publish(root, fill)
        with pytest.raises(UnknownId):
            folder_of(root, name)
        with pytest.raises(UnknownId):
            find_digest(root, name)

    @given(
        st.one_of(
            st.text(),
            st.text("./\\%\x00~:abf0123456789", max_size=80),
            st.from_regex(r"sha256:[0-9a-f./]{60,68}"),
        )
    )
    def test_no_name_leads_outside_the_root(self, name: str) -> None:
        root = Path("/srv/burnish/bundles")
        try:
            folder = folder_of(root, name)
        except UnknownId:
            return
        assert folder.parent == root
        assert len(folder.name) == 64
        assert set(folder.name) <= set("0123456789abcdef")

    def test_a_published_folder_is_found_by_the_first_digits_of_its_id(self, root: Path) -> None:
        digest = publish(root, fill)
        assert find_digest(root, digest) == digest
        assert find_digest(root, digest[:15]) == digest
        assert find_digest(root, digest[7:13]) == digest
        assert find_digest(root, short_id(digest)) == digest

    def test_a_beginning_of_no_id_or_of_two_ids_is_refused(self, root: Path) -> None:
        for name in ("abcd" + "0" * 60, "abcd" + "1" * 60):
            (root / name).mkdir(parents=True)
            (root / name / "manifest.json").write_text("{}")
        with pytest.raises(UnknownId, match="2 ids under root/ start with abcd"):
            find_digest(root, "abcd")
        with pytest.raises(UnknownId, match="0 ids under root/ start with beef"):
            find_digest(root, "beef")
        assert find_digest(root, "abcd1") == "sha256:abcd" + "1" * 60

    def test_half_published_and_foreign_folders_are_not_listed(self, root: Path) -> None:
        digest = publish(root, fill)
        for name in (".tmp-abc", "notes", "f" * 64):  # the last has no manifest
            (root / name).mkdir()
        (root / "notes" / "manifest.json").write_text("{}")
        assert list_digests(root) == [digest]
        assert list_digests(root / "absent") == []


def test_verify_opens_no_file_outside_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(folder: Path) -> dict[str, Any]:
        (folder / "a").write_bytes(b"x")
        return {}

    digest = publish(tmp_path / "root", fill)
    outside = tmp_path / "secret"
    outside.write_bytes(b"secret")
    (folder_of(tmp_path / "root", digest) / "b").symlink_to(outside)
    opened: list[Path] = []
    real_open = Path.open

    def open_noted(path: Path, *arguments: Any, **options: Any) -> IO[Any]:
        opened.append(path.resolve())
        file: IO[Any] = real_open(path, *arguments, **options)
        return file

    monkeypatch.setattr(Path, "open", open_noted)
    assert verify(tmp_path / "root", digest)
    assert outside.resolve() not in opened


def test_a_linked_folder_is_a_problem(tmp_path: Path) -> None:
    digest = publish(tmp_path / "elsewhere", lambda folder: {})
    (tmp_path / "root").mkdir()
    folder_of(tmp_path / "root", digest).symlink_to(folder_of(tmp_path / "elsewhere", digest))
    assert verify(tmp_path / "root", digest)
