"""Erase a person or a conversation everywhere: rows, snapshot entries and the adapters that learnt
from them.

An adapter cannot unlearn, so each one that was trained on what is forgotten is found by its lineage
(`deploy.erased_lineage`), marked as tainted, taken out of service and deleted. What is left to do,
a retrain and the operator's backups, is in the receipt.

Each step first saves what it is about to do, and may be repeated: `finish` completes an erasure
that a crash interrupted, and every other method does so first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.erased_lineage import ErasedLineage
from deploy.erasure_lock import no_erasure
from deploy.releases.registry import Registry
from deploy.remote_tuning.queue import TuningQueue
from engine.errors import UnknownId
from engine.home import Home
from engine.storage import folder_of, remove_folder, sweep
from feedback_store.accounts.accounts import Accounts
from feedback_store.ai_feedback.ai_pairs import rewrite_ai_pairs
from feedback_store.documents.library import Library
from feedback_store.privacy.erasure import (
    Erasure,
    deletion_digest,
    forget_before,
    forget_conversations,
    forget_user,
    list_erasures,
    person_digest,
    rewrite_snapshots,
    save_erasure,
    unfinished_erasures,
)
from feedback_store.storage.database import Database
from tuning.jobs.runner import JobRunner

REASON = "trained on the words or judgements of a person who was forgotten"
DELETED_REASON = "trained on a conversation that was deleted"
BACKUPS = (
    "Backups and exports of the database, of snapshots or of bundles made before are not reached"
    " from here, encrypted or not: delete them, or forget the person again after a restore."
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of an erasure, and what the operator has left to do. It names nobody."""

    number: int
    rows: Mapping[str, int]
    conversations: int
    snapshots: Mapping[str, str | None]  # old digest -> what stands for it now
    bundles: tuple[str, ...]  # tainted and deleted
    live: str | None  # what is live now
    retrain: bool
    backups: str = BACKUPS


class Forgetting:
    """Erasures in one home."""

    def __init__(
        self, *, home: Home, database: Database, registry: Registry, jobs: JobRunner
    ) -> None:
        self._home = home
        self._database = database
        self._registry = registry
        self._jobs = jobs
        self._queue = TuningQueue(database)
        self._accounts = Accounts(database)

    def forget(self, user_id: str) -> Receipt:
        """Forget a person, and delete their account.

        Raises `UnknownId` for one of whom nothing is known, `Conflict` while somebody else is being
        forgotten. After a crash, forgetting the person again ends what was begun.
        """
        with no_erasure(self._home):
            resumed = {e.person: self._carry_out(e) for e in unfinished_erasures(self._database)}
            documents = Library(self._home.documents).forget(user_id)
            try:
                had_account = self._accounts.delete(user_id)
                erasure = forget_user(self._database, user_id, documents, known=had_account)
            except UnknownId:
                if receipt := resumed.get(person_digest(user_id)):
                    return receipt
                raise
            return self._carry_out(erasure)

    def forget_conversations(
        self, conversation_ids: Collection[str], *, deleted_before: float | None = None
    ) -> Receipt:
        """Forget conversations and what was learnt from them, all in one erasure.

        With `deleted_before`, those that were deleted before then and not restored. Raises
        `UnknownId` where there is none of them, `Conflict` as `forget` does.
        """
        with no_erasure(self._home):
            resumed = {e.deleted: self._carry_out(e) for e in unfinished_erasures(self._database)}
            try:
                erasure = forget_conversations(
                    self._database, conversation_ids, deleted_before=deleted_before
                )
            except UnknownId:
                if receipt := resumed.get(deletion_digest(conversation_ids)):
                    return receipt
                raise
            return self._carry_out(erasure)

    def forget_before(self, at: float) -> Receipt | None:
        """Retention: forget the conversations that ended before a moment; None if there are none.

        What was learnt from them stays: retention is about keeping, not about a person's wish.
        """
        self.finish()
        with no_erasure(self._home):
            erasure = forget_before(self._database, at)
            return self._carry_out(erasure) if erasure else None

    def finish(self) -> list[Receipt]:
        """Complete the erasures that a crash interrupted.

        Raises `Conflict` where there is one, and another erasure or a backup is under way.
        """
        if not unfinished_erasures(self._database):
            return []
        with no_erasure(self._home):
            return [self._carry_out(erasure) for erasure in unfinished_erasures(self._database)]

    def _carry_out(self, erasure: Erasure) -> Receipt:
        """Carry out the rest of an erasure: snapshots, labels, jobs, bundles and releases."""
        erasure = rewrite_snapshots(self._home.snapshots, erasure)
        save_erasure(self._database, erasure)
        _remove(folder_of(self._home.snapshots, digest) for digest in erasure.receipt["snapshots"])
        replaced = rewrite_ai_pairs(self._home.ai_labels, lambda pair: not erasure.covers(pair))
        _remove(folder_of(self._home.ai_labels, digest) for digest in replaced)
        if erasure.unlearns:
            erasure = self._unlearn(erasure)
        erasure = replace(erasure, conversation_ids=frozenset())  # before what is old is swept away
        save_erasure(self._database, erasure)
        self._database.vacuum()
        save_erasure(self._database, erasure, done=True)
        return self._receipt(erasure)

    def _unlearn(self, erasure: Erasure) -> Erasure:
        """Take out of service, and delete, the artefacts that were trained on erased data."""
        lineage = ErasedLineage(self._home, erasure, list_erasures(self._database))
        # The live release gives way at once; a job takes a while to end, and may yet publish
        erasure = self._retire(erasure, lineage)
        self._end_jobs(lineage)
        erasure = self._retire(erasure, lineage)
        _remove(folder_of(self._home.bundles, bundle) for bundle in erasure.receipt["bundles"])
        _remove(folder_of(self._home.rewards, digest) for digest in lineage.reward_models())
        _remove([self._home.references])  # digests of their rows; computed anew when needed
        return erasure

    def _retire(self, erasure: Erasure, lineage: ErasedLineage) -> Erasure:
        """Taint the bundles that learnt from erased data; a live one gives way to its ancestor.

        The receipt names them first: after a crash, `finish` finds by it those that are gone.
        """
        bundles = sorted(lineage.bundles().union(erasure.receipt["bundles"]))
        erasure = replace(erasure, receipt={**erasure.receipt, "bundles": bundles})
        save_erasure(self._database, erasure)
        self._registry.taint(bundles, REASON if erasure.person is not None else DELETED_REASON)
        return erasure

    def _end_jobs(self, lineage: ErasedLineage) -> None:
        """Stop and delete jobs: their checkpoints are adapters too, and they may yet publish."""
        jobs = [
            j for j in self._jobs.list() if lineage.run_learnt(j.snapshot, self._jobs.recipe(j.id))
        ]
        for job in jobs:
            self._jobs.stop(job.id)
            self._queue.withdraw(job.id)  # its process may have been killed, and a worker have it
        sweep(self._home.jobs)
        _remove(self._jobs.folder(job.id) for job in jobs)

    def _receipt(self, erasure: Erasure) -> Receipt:
        receipt = erasure.receipt
        bundles = tuple(receipt["bundles"])
        return Receipt(
            erasure.number,
            receipt["rows"],
            receipt["conversations"],
            receipt["snapshots"],
            bundles,
            self._registry.live().bundle,
            retrain=bool(bundles),
        )


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        remove_folder(folder)
