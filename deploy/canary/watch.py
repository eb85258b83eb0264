"""Keeps a canary's candidate loaded in one server, and carries out what is decided."""

from __future__ import annotations

from contextlib import ExitStack

from deploy.canary.canaries import Canaries
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError, Overloaded

LOOK_SECONDS = 2.0  # for so long a faulty candidate goes on after its guard has tripped


class CanaryWatch:
    """Looks at the canary of a store, again and again, on one running engine."""

    def __init__(self, canaries: Canaries, slots: AdapterSlots) -> None:
        self._canaries = canaries
        self._slots = slots
        self._loaded: str | None = None
        self._pin = ExitStack()

    def look(self) -> None:
        """Keep the candidate of the canary that runs loaded, and let it decide."""
        running = self._canaries.running()
        self._keep_loaded(running.plan.candidate if running else None)
        self._canaries.look()

    def _keep_loaded(self, candidate: str | None) -> None:
        if candidate == self._loaded:
            return
        self._pin.close()
        self._loaded = None
        if candidate is None:
            return
        try:
            self._pin.enter_context(self._slots.hold(candidate))
            self._loaded = candidate
        except Overloaded:
            return  # it is tried again in a moment
        except BurnishError as error:
            self._canaries.refuse(candidate, str(error))
