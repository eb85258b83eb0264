"""The models that Burnish knows by name: which fit this machine, which are here, which is served.

`burnish model list`, `burnish doctor` and the console's tab *Model* show these rows.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import psutil

from app.settings import Settings
from engine.errors import BurnishError, Conflict, UnknownId
from engine.models.catalogue import fetch_from_hub
from engine.models.hub_cache import fetched_bytes, is_fetched
from engine.models.presets import Preset, preset, preset_weight_bytes, presets

ModelPlace = Literal["served", "here", "away"]  # away: to be fetched from the hub first


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model, with the bytes of its weights by quantization.

    `fits`: half the memory holds the weights as int4.
    """

    name: str
    hub_id: str
    licence: str
    weight_bytes: Mapping[str, int]
    fits: bool
    place: ModelPlace


def model_table(settings: Settings) -> Sequence[ModelRow]:
    """Return a row for each preset, in the presets' order."""
    memory_bytes = psutil.virtual_memory().total
    return [
        ModelRow(
            known.name,
            known.hub_id,
            known.licence,
            {kind: preset_weight_bytes(known, kind) for kind in ("none", "int8", "int4")},
            2 * preset_weight_bytes(known, "int4") < memory_bytes,
            _place(known, settings),
        )
        for known in presets().values()
    ]


def _place(known: Preset, settings: Settings) -> ModelPlace:
    if settings.model in (known.name, known.hub_id):
        return "served"
    return "here" if is_fetched(known.hub_id, settings.model_cache) else "away"


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """Progress of a fetch; `total_bytes` is an estimate by the preset's size. `error` ended it."""

    name: str
    fetched_bytes: int
    total_bytes: int
    running: bool
    error: str | None = None

    @property
    def share(self) -> float:
        """The share that is here; 1 only at the end."""
        if not self.running and self.error is None:
            return 1.0
        return min(0.99, self.fetched_bytes / self.total_bytes)


class ModelFetch:
    """Fetches models by their presets' names, one at a time, in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._cache = settings.model_cache
        self._lock = threading.Lock()
        self._known: Preset | None = None
        self._error: str | None = None
        self._thread: threading.Thread | None = None

    def start(self, name: str) -> None:
        """Begin to fetch a model; raises `UnknownId`, and `Conflict` while another is fetched."""
        known = preset(name)
        if known is None:
            raise UnknownId(f"no preset {name[:80]!r} (known: {', '.join(presets())})")
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise Conflict("a model is being fetched; one at a time")
            self._known, self._error = known, None
            self._thread = threading.Thread(
                target=self._fetch, args=(known,), name="burnish-fetch", daemon=True
            )
            self._thread.start()

    def progress(self) -> FetchProgress | None:
        """Return how far the last fetch is; None before the first."""
        with self._lock:
            known, thread = self._known, self._thread
        if known is None or thread is None:
            return None
        running = thread.is_alive()
        return FetchProgress(
            known.name,
            fetched_bytes(known.hub_id, self._cache),
            preset_weight_bytes(known, "none"),
            running,
            None if running else self._error,
        )

    def _fetch(self, known: Preset) -> None:
        try:
            fetch_from_hub(known.hub_id, self._cache)
        except BurnishError as error:
            self._error = str(error)
