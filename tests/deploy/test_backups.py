"""A backup is taken while people vote, and only a whole one becomes a home."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from deploy.backups.archive import extract_archive, write_archive
from deploy.backups.making import back_up
from deploy.backups.restoring import restore
from deploy.backups.secret_settings import without_secrets
from deploy.erasure_lock import no_erasure
from deploy.releases.registry import Registry
from engine.errors import BurnishError, Conflict, InvalidInput, UnknownId
from engine.home import Home
from engine.storage import list_digests, publish, verify
from feedback_store.documents.library import Collection, Library
from feedback_store.storage import tables
from feedback_store.storage.database import Database, database_url
from feedback_store.storage.store import FeedbackStore
from feedback_store.storage.turns import new_id
from tests.deploy.homes import HomeInUse
from tests.feedback_store.conftest import Conversations
from tests.support.waiting import wait_until

SECRET = {"judge_api_key", "database_url"}
SETTINGS = '# ours\njudge_api_key = "hush"\nmax_rows = 8  # of 32\n'


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "backup.tar"


@pytest.fixture
def new_url(request: pytest.FixtureRequest, any_home: HomeInUse) -> str | None:
    """The settings of the restored home about its database."""
    if str(any_home.database.url).startswith("sqlite"):
        return None
    return str(request.getfixturevalue("postgresql").create())


def backed_up(home: HomeInUse, archive: Path, **options: Any) -> dict[str, Any]:
    return back_up(Home(home.folder), home.database, archive, secret_settings=SECRET, **options)


@contextmanager
def votes_arriving(home: HomeInUse) -> Iterator[list[str]]:
    """Four people vote without a pause; yields the keys of the votes that were acknowledged."""
    store = FeedbackStore(home.database)
    answer_id = Conversations(store).ask()
    acknowledged: list[str] = []
    stop = threading.Event()

    def vote(person: str) -> None:
        while not stop.is_set():
            store.vote(answer_id, person, 1, idempotency_key=(key := new_id()))
            acknowledged.append(key)

    threads = [threading.Thread(target=vote, args=("ann",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield acknowledged
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def keys_in(url: Any) -> set[str]:
    database = Database(url)
    with database.read() as connection:
        keys = set(connection.scalars(select(tables.events.c.idempotency_key)))
    database.close()
    return keys


def test_votes_keep_arriving_and_none_that_was_acknowledged_before_is_missing(
    any_home: HomeInUse, new_url: str | None, archive: Path, tmp_path: Path
) -> None:
    home = any_home
    home.people.speaks("ann")
    bundle = home.bundle(home.freeze(), seed=1, promoted=True)
    with votes_arriving(home) as acknowledged:
        wait_until(lambda: len(acknowledged) > 50)
        before = set(acknowledged)
        backed_up(home, archive)
        after = len(acknowledged)
        wait_until(lambda: len(acknowledged) > after)
    restored = Home(tmp_path / "restored")
    restore(archive, restored, new_url)
    url = database_url(restored, new_url)
    assert before <= keys_in(url)
    assert list_digests(restored.bundles) == [bundle]
    assert list_digests(restored.snapshots) == list_digests(home.snapshots)
    database = Database(url)
    assert Registry(database).live() == home.registry.live()  # the migrations find it up to date
    database.close()


def test_a_backup_has_what_the_home_cannot_make_again_and_no_keys(
    home: HomeInUse, archive: Path, tmp_path: Path
) -> None:
    at = Home(home.folder)
    at.examples.write_text("- question: Hi\n")
    at.session_key.write_text("private")
    at.settings.write_text(SETTINGS)
    (tmp_path / "note.txt").write_text("The harbour closes at nine.")
    Library(at.documents).add(Collection("notes"), tmp_path / "note.txt", "note.txt")
    evaluation = publish(at.evaluations, lambda folder: {"made": 1})
    (at.evaluations / ".tmp-half").mkdir()
    for left_out in (at.jobs, at.references, at.uploads):
        (left_out / "one").mkdir(parents=True)
        (left_out / "one" / "file").write_text("left out")
    manifest = backed_up(home, archive)
    restored = Home(tmp_path / "restored")
    restore(archive, restored, None)
    assert {path.split("/")[0] for path in manifest["files"]} == {
        *("burnish.db", "settings.toml", "examples.yaml", "documents", "evaluations")
    }
    assert restored.settings.read_text() == "# ours\nmax_rows = 8  # of 32\n"
    assert verify(restored.evaluations, evaluation) == []
    assert [d.name for d in Library(restored.documents).documents(None)] == ["note.txt"]
    assert restored.root.stat().st_mode & 0o077 == 0
    assert list(at.backup.iterdir()) == []


def test_the_keys_are_taken_where_they_are_asked_for(
    home: HomeInUse, archive: Path, tmp_path: Path
) -> None:
    at = Home(home.folder)
    at.session_key.write_text("private")
    at.settings.write_text(SETTINGS)
    backed_up(home, archive, with_keys=True)
    restored = Home(tmp_path / "restored")
    restore(archive, restored, None)
    assert restored.session_key.read_text() == "private"
    assert restored.settings.read_text() == SETTINGS


def test_a_secret_on_several_lines_is_refused_rather_than_left_in_part() -> None:
    assert without_secrets(SETTINGS, SECRET) == "# ours\nmax_rows = 8  # of 32\n"
    assert without_secrets('"judge_api_key"="a=b"\n# database_url = "old"\n', SECRET) == ""
    with pytest.raises(InvalidInput, match="one line"):
        without_secrets('judge_api_key = """hu\nsh"""\n', SECRET)
    with pytest.raises(InvalidInput, match="one line"):
        without_secrets('judge_api_key = """hu\nmax_rows = 8"""\n', SECRET)


def flipped(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[len(data) // 4] ^= 1
    archive.write_bytes(data)


def cut_off(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])


def without_manifest(archive: Path) -> None:
    rewritten(archive, lambda name: None if name == "manifest.json" else name)


def escaping(archive: Path) -> None:
    rewritten(archive, lambda name: f"../{name}" if name == "burnish.db" else name)


def linking(archive: Path) -> None:
    with tarfile.open(archive, "a") as tar:
        link = tarfile.TarInfo("bundles")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)


def another(archive: Path) -> None:
    archive.write_text("no tar at all")


def rewritten(archive: Path, name_of: Callable[[str], str | None]) -> None:
    with tarfile.open(archive) as old:
        members = [(m, old.extractfile(m).read()) for m in old if name_of(m.name)]  # type: ignore[union-attr]
    with tarfile.open(archive, "w") as new:
        for member, data in members:
            member.name = str(name_of(member.name))
            new.addfile(member, io.BytesIO(data))


HARMS = (flipped, cut_off, without_manifest, escaping, linking, another)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_an_archive_that_is_not_the_whole_one_is_refused_and_leaves_nothing(
    home: HomeInUse, archive: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    backed_up(home, archive)
    harm(archive)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidInput):
        restore(archive, Home(tmp_path / "restored"), None)
    assert sorted(tmp_path.iterdir()) == before


def test_every_flipped_byte_of_a_file_is_noticed(
    home: HomeInUse, archive: Path, tmp_path: Path
) -> None:
    backed_up(home, archive)
    whole = archive.read_bytes()
    with tarfile.open(archive) as tar:
        places = [m.offset_data + at for m in tar for at in range(0, m.size, max(1, m.size // 9))]
    for number, place in enumerate(places):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((InvalidInput, UnknownId)):
            extract_archive(archive, tmp_path / f"extracted-{number}")


def test_a_home_that_is_not_empty_is_left_as_it_is(
    home: HomeInUse, archive: Path, tmp_path: Path
) -> None:
    backed_up(home, archive)
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "mine.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="not empty"):
        restore(archive, Home(occupied), None)
    assert [path.name for path in occupied.iterdir()] == ["mine.txt"]
    (occupied / "mine.txt").unlink()
    restore(archive, Home(occupied), None)
    assert Home(occupied).database.is_file()


@pytest.mark.integration
def test_a_database_of_postgresql_must_be_named_and_empty(
    request: pytest.FixtureRequest, tiny_base: Any, archive: Path, tmp_path: Path
) -> None:
    server = request.getfixturevalue("postgresql")
    (tmp_path / "home").mkdir()
    url = server.create_migrated()
    home = HomeInUse(tmp_path / "home", url, tiny_base, tmp_path / "models")
    backed_up(home, archive)
    for wrong, said in ((None, "BURNISH_DATABASE_URL"), (url, "not empty")):
        with pytest.raises(BurnishError, match=said):
            restore(archive, Home(tmp_path / "restored"), wrong)
        assert not (tmp_path / "restored").exists()
    home.database.close()


def test_a_backup_without_a_database_is_none(
    home: HomeInUse, archive: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    write_archive(tmp_path / "empty", archive, {"database": "sqlite", "with_keys": False})
    with pytest.raises(InvalidInput, match="has no burnish"):
        restore(archive, Home(tmp_path / "restored"), None)


def test_an_archive_is_never_overwritten(home: HomeInUse, archive: Path) -> None:
    archive.write_text("yesterday's")
    with pytest.raises(InvalidInput, match="exists already"):
        backed_up(home, archive)
    assert archive.read_text() == "yesterday's"


def test_backups_and_erasures_wait_for_each_other(home: HomeInUse, archive: Path) -> None:
    with no_erasure(Home(home.folder)), pytest.raises(Conflict, match="forgotten"):
        backed_up(home, archive)
    assert not archive.exists()
    backed_up(home, archive)


def test_a_server_starts_while_a_backup_is_taken(home: HomeInUse) -> None:
    with no_erasure(Home(home.folder)):
        assert home.forgetting.finish() == []  # the first thing that a server does


def test_what_a_killed_backup_left_is_in_no_archive(home: HomeInUse, archive: Path) -> None:
    staging = Home(home.folder).backup
    (staging / "bundles" / "old").mkdir(parents=True)
    (staging / "bundles" / "old" / "file").write_text("of another day")
    assert "bundles/old/file" not in backed_up(home, archive)["files"]


def test_files_are_copied_where_the_disk_has_no_links(
    home: HomeInUse, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(source: str, target: str) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr("os.link", no_link)
    digest = publish(Home(home.folder).evaluations, lambda folder: {"made": 1})
    name = f"evaluations/{digest[7:]}/manifest.json"
    assert name in backed_up(home, archive)["files"]
    shutil.rmtree(Home(home.folder).evaluations)
