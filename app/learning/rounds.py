"""The loop's rounds in a running server: one at a time, each in the background of the chat."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from app.learning.open_webui import sync_before_round
from deploy.gate.verdict import verdict_line
from deploy.loop import LoopResult, RoundRequest
from deploy.releases.events import LOOP
from deploy.rounds.round import Round
from deploy.rounds.stages import unchanged
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError, Conflict
from engine.request import Engine
from tuning.jobs.events import JobEvent
from tuning.recipe import Recipe, recipe_from_dict

if TYPE_CHECKING:
    from app.workspace import Workspace


class Rounds:
    """The rounds of one server; `last` says in a line what came of the last one."""

    def __init__(self, workspace: Workspace, engine: Engine, slots: AdapterSlots) -> None:
        self._workspace = workspace
        self._engine = engine
        self._slots = slots
        self._one = threading.Lock()
        self.last = "none yet"

    @property
    def running(self) -> bool:
        """Return whether a round runs in this server."""
        return self._one.locked()

    def tick(self) -> None:
        """Go on with a round that was interrupted, or begin one where the schedule says so."""
        workspace = self._workspace
        enabled = workspace.settings.loop_enabled
        if workspace.loop.plan(enabled=enabled).action == "wait":
            return
        with suppress(Conflict):  # a round runs, here or in another process
            self._exclusively(
                lambda: workspace.loop.tick(
                    self._engine, self._slots, self._synced_request, _ignore, enabled=enabled
                )
            )

    def run(self) -> LoopResult:
        """Run one round, if the evidence is worth it; raises `Conflict` while another one runs."""
        loop = self._workspace.loop
        result = self._exclusively(
            lambda: loop.run(self._engine, self._slots, self._synced_request(), _ignore)
        )
        assert result is not None, "only a tick may find nothing to do"
        return result

    def tune(self, actor: str, asked: tuple[Recipe, dict[str, str]] | None = None) -> None:
        """Take a snapshot, tune and evaluate in a thread; the console shows the progress.

        `asked` is a recipe with the origins of its values; without one it is the settings'. Raises
        `Conflict` while a round runs, or where nothing has changed since a release was trained, and
        `InvalidInput` for an invalid recipe or where there is nothing to train on.
        """
        workspace = self._workspace
        recipe, origins = asked or workspace.recipe()
        request = RoundRequest(recipe, origins, forced=True, promotes=False, actor=actor)

        def begin() -> None:
            if (going_on := self._workspace.loop.unfinished) is not None:
                if going_on.next_stage == "canary":
                    raise Conflict(f"the canary of round {going_on.number} has not decided yet")
                if asked is not None and going_on.begun["recipe"] != recipe.as_dict():
                    raise Conflict(f"round {going_on.number} of the loop goes on")
                return  # that round is tried again
            snapshot = workspace.take_snapshot()
            made = workspace.jobs.find_done(workspace.base.digest, snapshot, recipe)
            if made is not None and made in workspace.registry.record().releases:
                raise Conflict(unchanged(made))

        self._in_background(request, begin)

    def start_round(self, actor: str) -> None:
        """Run a whole round in a thread, though the evidence asked for none.

        Raises `Conflict` while a round runs, and `InvalidInput` for an invalid recipe or where
        there is nothing to train on.
        """
        request = self._request(forced=True, actor=actor)

        def begin() -> None:
            if (going_on := self._workspace.loop.unfinished) is not None:
                raise Conflict(f"round {going_on.number} of the loop goes on")
            sync_before_round(self._workspace)
            self._workspace.take_snapshot()

        self._in_background(request, begin)

    def resume_job(self, job: str, actor: str = "console") -> None:
        """Resume a stopped job and evaluate its bundle at its end, as `tune` does.

        Raises the errors of `JobRunner.resume`, and `Conflict` while a round runs.
        """
        jobs = self._workspace.jobs
        request = RoundRequest(
            recipe_from_dict(jobs.recipe(job)),
            {},
            forced=True,
            promotes=False,
            actor=actor,
            job=job,
        )

        def begin() -> None:
            going_on = self._workspace.loop.unfinished
            if going_on is not None and not self._works_on(going_on, job):
                raise Conflict(f"round {going_on.number} of the loop goes on")
            jobs.resume(job)

        self._in_background(request, begin)

    def _works_on(self, round_: Round, job: str) -> bool:
        """Return whether a round is in its tuning, and the job is its own."""
        snapshot, recipe = self._workspace.jobs.get(job).snapshot, self._workspace.jobs.recipe(job)
        return (
            round_.next_stage == "tune"
            and round_.snapshot == snapshot
            and round_.begun["recipe"] == recipe
        )

    def _synced_request(self) -> RoundRequest:
        """The request of the loop's own rounds, once what people said elsewhere is here."""
        sync_before_round(self._workspace)
        return self._request()

    def _request(self, *, forced: bool = False, actor: str = LOOP) -> RoundRequest:
        """The request of a round of the loop, by the settings."""
        recipe, origins = self._workspace.loop_recipe()
        promotes = self._workspace.settings.loop_promotes
        return RoundRequest(recipe, origins, forced=forced, promotes=promotes, actor=actor)

    def _in_background(self, request: RoundRequest, begin: Callable[[], object]) -> None:
        """Call `begin` here, so that it raises in the caller, and then run a round in a thread."""
        if not self._one.acquire(blocking=False):
            raise Conflict("a round is already running")
        try:
            begin()
        except BaseException:
            self._one.release()
            raise

        def in_thread() -> None:
            outcome = "failed: the server's log says why"
            try:
                outcome = _outcome_line(
                    self._workspace.loop.run(self._engine, self._slots, request, _ignore)
                )
            except BurnishError as error:
                outcome = f"failed: {error}"
            finally:
                self.last = outcome
                self._one.release()

        self.last = "running"
        threading.Thread(target=in_thread, name="burnish-tune", daemon=True).start()

    def _exclusively(self, work: Callable[[], LoopResult | None]) -> LoopResult | None:
        if not self._one.acquire(blocking=False):
            raise Conflict("a round is already running")
        try:
            result = work()
            if result is not None:
                self.last = _outcome_line(result)
            return result
        except Conflict:
            raise
        except BurnishError as error:
            self.last = f"failed: {error}"
            raise
        finally:
            self._one.release()


def _outcome_line(result: LoopResult) -> str:
    """Describe the outcome of a round in a line."""
    if result.bundle is not None and result.report is not None:
        return verdict_line(result.bundle, result.report)
    return result.reason


def _ignore(_event: JobEvent) -> None:
    """The progress is in the job's folder, where the console reads it."""
