"""A home in which people speak and adapters learn from them."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.forgetting import Forgetting
from deploy.releases.promotion import Releases
from deploy.releases.registry import Registry
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.storage import digest_json, folder_of, list_digests
from feedback_store.storage.database import Database
from tests.feedback_store.people import People, Person, all_rows, files_with, without
from tests.helpers import make_bundle
from tuning.jobs.runner import JobRunner


class HomeInUse:
    """A home folder in which people speak, snapshots are frozen and bundles are published."""

    def __init__(self, folder: Path, url: str, base: BaseModel, models: Path) -> None:
        self.folder = folder
        self.base = base
        self.database = Database(url)
        self.people = People(self.database)
        self.registry = Registry(self.database)
        self.jobs = JobRunner(Home(folder), models, nice=0)
        self.snapshots, self.bundles = Home(folder).snapshots, Home(folder).bundles
        self.forgetting = Forgetting(
            home=Home(folder), database=self.database, registry=self.registry, jobs=self.jobs
        )
        self.releases = Releases(self.registry, self.bundles, base)

    def freeze(self) -> str:
        return self.people.freeze(self.snapshots)

    def bundle(self, snapshot: str, seed: int, *, promoted: bool = False) -> str:
        """A bundle trained on a snapshot, with the job that made it."""
        bundle = make_bundle(self.bundles, self.base, seed, manifest={"snapshot": snapshot})
        self.finished_job(snapshot, bundle)
        self.registry.add(bundle, {"verdict": "better"})
        if promoted:
            self.registry.promote(bundle, self.registry.live())
        return bundle

    def finished_job(self, snapshot: str, bundle: str) -> Path:
        """A job's folder, with a checkpoint and a log that quote what was learnt."""
        folder = self.jobs.folder(digest_json(["job", snapshot, bundle]))
        (folder / "checkpoint").mkdir(parents=True)
        files = folder_of(self.snapshots, snapshot).rglob("*.jsonl")
        texts = "".join(path.read_text() for path in files)
        (folder / "checkpoint" / "state").write_text(texts)
        (folder / "log.txt").write_text(texts)
        (folder / "progress.jsonl").write_text("")
        (folder / "result.json").write_text(json.dumps({"state": "done", "bundle": bundle}))
        (folder / "manifest.json").write_text(json.dumps({"snapshot": snapshot, "started_at": 0.0}))
        return folder

    def bundles_left(self) -> set[str]:
        return set(list_digests(self.bundles))

    def jobs_left(self) -> set[str | None]:
        return {job.bundle for job in self.jobs.list()}


def traces(home: HomeInUse, person: Person) -> list[str]:
    """Files and tables that still tell of a person."""
    rows = all_rows(home.database, derived=True)
    tables_left = [name for name, each in rows.items() if without(rows, person)[name] != each]
    return files_with(home.folder, person.marks) + tables_left
