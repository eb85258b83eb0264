"""Make a release live, and keep each running server on it.

Promoting checks the bundle and moves the registry's pointer. Each server has a `Follower`, which
sees the pointer move, activates the bundle in its own engine (validate, load, probe, flip, drain)
and reports back; if its engine refuses, the pointer goes back and the reason is kept.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from deploy.releases.registry import SERVER_LOST_SECONDS, LiveRelease, Registry
from engine.adapters.bundle import open_bundle
from engine.adapters.slots import AdapterSlots
from engine.errors import (
    BurnishError,
    Conflict,
    DatabaseUnavailable,
    EngineFailure,
    InvalidInput,
    Overloaded,
    PeerUnavailable,
    StorageFull,
)
from engine.models.catalogue import BaseModel
from engine.repeater import Repeater
from engine.storage import folder_of

FOLLOW_SECONDS = 0.5
HEARTBEAT_SECONDS = SERVER_LOST_SECONDS / 3
# Receives the seconds that an activation took, and whether the engine took the adapter
SwapObserver = Callable[[float, bool], None]


class Releases:
    """Promotion and rollback by the operator."""

    def __init__(self, registry: Registry, bundles: Path, base: BaseModel) -> None:
        self._registry = registry
        self._bundles = bundles
        self._base = base

    def promote(
        self, bundle: str, *, reason: str = "", actor: str = "", force: bool = False
    ) -> LiveRelease:
        """Make a release live; raises `Conflict` unless the gate found it better, or `force`.

        `reason` and `actor` are recorded. Raises `InvalidInput` where the gate is overridden and no
        reason is given.
        """
        seen = self._registry.live()
        report = self._registry.get(bundle).report
        verdict = report.get("verdict")
        outdated = report.get("incumbent", seen.bundle) != seen.bundle
        if outdated and not force:
            raise Conflict("it was judged against a release that is no longer live; judge it again")
        if verdict != "better" and not force:
            raise Conflict(f"the gate's verdict is {verdict!r}; force it if you know better")
        overridden = f"{verdict}, against another release" if outdated else str(verdict)
        overrides = outdated or verdict != "better"
        if overrides and not reason.strip():
            raise InvalidInput("an override of the gate needs a reason")
        open_bundle(self._bundles, bundle, self._base)
        return self._registry.promote(
            bundle,
            seen,
            note=reason.strip(),
            actor=actor,
            overridden=overridden if overrides else None,
        )

    def waiting(self) -> str | None:
        """The newest release that the gate found better than what is live, and that never was live.

        None where there is none, or where its folder is gone.
        """
        live = self._registry.live().bundle
        tainted = self._registry.tainted()
        promoted = {change.bundle for change in self._registry.history()}
        for release in self._registry.list():
            report = release.report
            is_better = report.get("verdict") == "better" and report.get("incumbent", live) == live
            if is_better and release.bundle not in promoted and release.bundle not in tainted:
                return release.bundle if folder_of(self._bundles, release.bundle).is_dir() else None
        return None

    def rollback(self, *, reason: str = "", actor: str = "") -> LiveRelease:
        """Make the release before the live one live; raises `Conflict` when it is gone."""
        seen = self._registry.live()
        target = self._registry.rollback_target(seen)
        if target is not None:
            try:
                open_bundle(self._bundles, target, self._base)
            except BurnishError as error:
                raise Conflict(f"cannot roll back to {target}: {error}") from error
        return self._registry.rollback(seen, note=reason.strip(), actor=actor)

    def wait_until_served(self, wanted: LiveRelease, timeout_seconds: float = 60) -> int:
        """Wait for every running server to serve a generation; returns how many do.

        Raises `EngineFailure` when a server refused it, or has not followed in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            newest = next(iter(self._registry.history()), None)
            if newest is not None and newest.generation > wanted.generation:
                raise EngineFailure(
                    f"the release did not stay live ({newest.action}: {newest.note})"
                )
            running = self._registry.servers()
            behind = [s for s in running if s.generation < wanted.generation]
            if not behind:
                return len(running)
            if time.monotonic() > deadline:
                raise EngineFailure(f"{len(behind)} servers have not followed in time")
            time.sleep(FOLLOW_SECONDS / 5)


class Follower:
    """One server's threads: one keeps its engine on the live release, one tells that it is alive.

    They are two, since loading a release may take longer than a server may be silent.
    """

    def __init__(
        self,
        registry: Registry,
        slots: AdapterSlots,
        server_id: str | None = None,
        *,
        observe_swap: SwapObserver | None = None,
    ) -> None:
        self.server_id = server_id or uuid.uuid4().hex
        self._observe_swap = observe_swap
        self._registry = registry
        self._slots = slots
        self._reported: tuple[int, str | None] = (0, None)
        self._reporting = threading.Lock()  # guards the one above
        self._repeaters = [
            Repeater(partial(_try, work), seconds, "burnish-follower")
            for work, seconds in ((self._follow, FOLLOW_SECONDS), (self._beat, HEARTBEAT_SECONDS))
        ]

    def start(self) -> None:
        """Catch up with the registry, then follow it in the background."""
        self._follow()
        self._beat()
        for repeater in self._repeaters:
            repeater.start()

    def stop(self) -> None:
        """Stop the threads and remove this server; if that fails, the others see it is silent."""
        for repeater in self._repeaters:
            repeater.stop()
        with suppress(StorageFull, DatabaseUnavailable):
            self._registry.remove_server(self.server_id)

    def _follow(self) -> None:
        wanted = self._registry.live()
        begun_at, is_swap = time.monotonic(), wanted.bundle != self._slots.live
        activated = False
        try:
            self._slots.activate(wanted.bundle)
            activated = True
        except (Overloaded, StorageFull, DatabaseUnavailable, PeerUnavailable):
            return  # no fault of the release's; it is looked at again in a moment
        except Exception as refused:  # noqa: BLE001 - whatever it is, this release cannot be served
            if not self._slots.engine_alive:
                return  # no fault of the release's either: other servers may well serve it
            with suppress(Conflict):  # somebody moved the pointer already
                self._registry.rollback(
                    wanted, note=f"refused by a server: {refused}", actor=f"server {self.server_id}"
                )
        if is_swap and self._observe_swap is not None:
            self._observe_swap(time.monotonic() - begun_at, activated)
        with self._reporting:
            served = wanted.generation, self._slots.live
            if served != self._reported:
                self._registry.report_server(self.server_id, *served)
                self._reported = served

    def _beat(self) -> None:
        """Report as a heartbeat what was served last."""
        with self._reporting:
            self._registry.report_server(self.server_id, *self._reported)


def _try(work: Callable[[], None]) -> None:
    with suppress(Exception):  # a database that is busy now must not end the following
        work()
