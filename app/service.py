"""The composition root: builds everything that serves a workspace from its settings.

That is the engine, its adapters and the background work.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TypeVar

from app.answering.answering import BASE, LIVE, Answering
from app.answering.completions import Completions
from app.answering.conversation import Chat
from app.answering.embeddings import Embeddings
from app.claims import shares_store
from app.learning.alternatives import AlternativeWriter
from app.learning.canaries import canary_comparisons, canary_router, watch_canaries
from app.learning.rounds import Rounds
from app.learning.schedules import Schedules
from app.metrics import Metrics
from app.workspace import Workspace
from deploy.releases.servers import SERVER_WATCH_SECONDS, ServerWatch
from engine.errors import Conflict, UnknownId
from engine.storage import find_digest

T = TypeVar("T")
UNDO_SECONDS = 15.0  # a deletion can be taken back for about half of them
RETENTION_SCHEDULE = "0 4 * * *"  # crontab: each day at 4 o'clock


class Service:
    """A workspace with a running engine."""

    def __init__(self, workspace: Workspace) -> None:
        from deploy.releases.promotion import Follower
        from engine.adapters.slots import AdapterSlots
        from engine.start import start_engine

        settings = workspace.settings
        self.workspace = workspace
        key = settings.remote_api_key
        self.engine = start_engine(
            workspace.base,
            kind=settings.engine,
            quantization=settings.quantization,
            model_cache=settings.model_cache,
            max_rows=settings.max_rows,
            max_queue=settings.max_queue,
            kv_cache_bytes=settings.kv_cache_bytes,
            remote_urls=settings.remote_urls,
            remote_api_key=None if key is None else key.get_secret_value(),
        )
        self.slots = AdapterSlots(self.engine, workspace.base, workspace.home.bundles)
        self.metrics = Metrics()
        self.follower = Follower(
            workspace.registry,
            self.slots,
            workspace.store.writer,
            observe_swap=self.metrics.observe_swap,
        )
        self._servers = ServerWatch(workspace.registry)
        answering = Answering(
            self.engine, canary_router(self.slots, workspace), workspace.store, self.metrics
        )
        self.completions = Completions(
            answering, workspace.store, max_message_chars=settings.max_message_chars
        )
        self.embeddings = Embeddings(self.engine, answering)
        self.chat = Chat(
            self.engine,
            answering,
            workspace.store,
            examples=workspace.examples,
            system_prompt=settings.system_prompt,
            sampling=settings.sampling,
            max_message_chars=settings.max_message_chars,
            feedback_examples=workspace.feedback_examples,
            library=workspace.documents,
            toolbox=workspace.toolbox,
        )
        self.comparisons = canary_comparisons(self.chat, workspace)
        self.alternative_writer = AlternativeWriter(
            self.engine,
            self.slots,
            self.chat.running,
            workspace.store,
            workspace.alternatives,
            workspace.comparison_queue,
            sampling=self.chat.sampling(),
            count=settings.alternatives,
            busy=self._is_training,
        )
        self.rounds = Rounds(workspace, self.engine, self.slots)
        self.schedules = Schedules()

    def start(self) -> None:
        """Serve the live release and start the schedules that the settings ask for."""
        settings = self.workspace.settings
        self.close_abandoned_answers()
        self.workspace.forgetting.finish()
        self.follower.start()
        if shares_store(settings):
            close = self.close_abandoned_answers
            self.schedules.each_seconds(SERVER_WATCH_SECONDS, close)
        self.schedules.each_minute(self.rounds.tick)
        watch_canaries(self.slots, self.workspace, self.schedules)
        self.schedules.each_minute(self.erase_deleted)
        self.schedules.each_minute(self.alternative_writer.write_while_idle)
        if settings.retention_days is not None:
            self.workspace.forget_old()
            self.schedules.on_crontab(RETENTION_SCHEDULE, self.workspace.forget_old)
        self.schedules.start()

    def close(self) -> None:
        """Stop everything, in the reverse order."""
        self.schedules.stop()
        self.chat.running.refuse_more()
        self.follower.stop()
        self.engine.close()
        self.workspace.close()

    def adapter_named(self, release: str) -> str | None:
        """Resolve a release's name to an adapter: "live", "base" (None), or a digest's beginning.

        Raises `UnknownId` if no digest or several begin so.
        """
        if release == BASE:
            return None
        return LIVE if release == LIVE else find_digest(self.workspace.home.bundles, release)

    def erase_deleted(self) -> None:
        """Erase deleted conversations whose deletion can no longer be undone."""
        before = time.time() - UNDO_SECONDS
        if due := self.workspace.conversations.due(before):
            with suppress(Conflict, UnknownId):  # another erasure runs, or all were restored now
                self.workspace.forgetting.forget_conversations(due, deleted_before=before)

    def close_abandoned_answers(self) -> None:
        """Close the answers of servers that have died, so that they can be continued here."""
        shared = shares_store(self.workspace.settings)
        running = self._servers.alive() | {self.workspace.store.writer} if shared else ()
        self.workspace.store.abort_unfinished(running)

    def _is_training(self) -> bool:
        """Return whether a round or a tuning job runs: it gets the processors before idle work."""
        jobs = self.workspace.jobs.list()
        return self.rounds.running or any(job.state == "running" for job in jobs)
