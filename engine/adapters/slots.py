"""The live adapter and its replacement: validate -> load -> probe -> flip -> drain -> unload.

Everything that can fail happens before the flip, and the flip is one assignment. A stream is
pinned to the adapter it began with; an adapter is freed once no stream is pinned to it. The live
pointer and the pins are kept in this module alone.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from engine.adapters.bundle import open_bundle
from engine.errors import InvalidBundle
from engine.messages import Message
from engine.models.catalogue import BaseModel
from engine.request import (
    BASE,
    LIVE,
    Engine,
    GenerationRequest,
    SamplingParams,
    ScoreRequest,
    collect,
)
from engine.storage import find_digest

PROBE_MESSAGES = (Message("user", "Say hello."),)


class AdapterSlots:
    """The adapters of one running engine."""

    def __init__(self, engine: Engine, base: BaseModel, bundles: Path) -> None:
        self._engine = engine
        self._base = base
        self._bundles = bundles
        self._live: str | None = None
        self._pins: Counter[str] = Counter()
        self._loaded: set[str] = set()  # verified, loaded and probed
        self._lock = threading.Lock()  # guards the three above
        self._activation = threading.Lock()  # one activation at a time

    @property
    def live(self) -> str | None:
        """The adapter of the next stream; None is the base model."""
        return self._live

    @property
    def engine_alive(self) -> bool:
        """Return whether the engine can still make tokens."""
        return self._engine.alive

    def activate(self, digest: str | None) -> None:
        """Make an adapter live; None makes the base model live.

        Raises `InvalidBundle` or another error of the tree, and nothing has changed then.
        """
        with self._activation:
            if digest == self._live:
                return
            if digest is not None:
                with self.hold(digest):
                    self._flip(digest)
            else:
                self._flip(None)

    def pin(self, release: str) -> AbstractContextManager[str | None]:
        """Keep the adapter that a release's name means: "live", "base", or a digest's beginning.

        Raises `UnknownId` if no digest or several begin so.
        """
        if release == LIVE:
            return self.pin_live()
        return self.hold(None if release == BASE else find_digest(self._bundles, release))

    @contextmanager
    def pin_live(self) -> Iterator[str | None]:
        """Yield the live adapter, which stays loaded while the block runs."""
        with self._lock:
            digest = self._live
            self._pin(digest)
        try:
            yield digest
        finally:
            self._unpin(digest)

    @contextmanager
    def hold(self, digest: str | None) -> Iterator[str | None]:
        """Yield a given adapter, which is verified, loaded and kept while the block runs."""
        if digest is None:
            yield None
            return
        with self._lock:
            self._pin(digest)
        try:
            if digest not in self._loaded:
                with self._engine.background() as yield_to_engine:
                    bundle = open_bundle(self._bundles, digest, self._base, yield_to_engine)
                self._engine.load_adapter(digest, bundle.folder)
                self._probe(digest)
                self._loaded.add(digest)
            yield digest
        finally:
            self._unpin(digest)

    def _probe(self, digest: str) -> None:
        """Generate a few tokens and score an answer, to show that the adapter computes numbers."""
        sampling = SamplingParams(temperature=0, max_new_tokens=4)
        collect(self._engine.submit(GenerationRequest(PROBE_MESSAGES, sampling, digest)))
        score = self._engine.score([ScoreRequest(PROBE_MESSAGES, "Hello!", digest)])[0]
        if not score.total > float("-inf"):
            raise InvalidBundle(["the probe answer has no finite probability"])

    def _flip(self, digest: str | None) -> None:
        with self._lock:
            old, self._live = self._live, digest
        self._free_if_idle(old)

    def _pin(self, digest: str | None) -> None:
        if digest is not None:
            self._pins[digest] += 1

    def _unpin(self, digest: str | None) -> None:
        if digest is None:
            return
        with self._lock:
            self._pins[digest] -= 1
        self._free_if_idle(digest)

    def _free_if_idle(self, digest: str | None) -> None:
        # The lock is held to the end: a pin taken meanwhile must find the adapter loaded or load it
        with self._lock:
            if digest is None or digest == self._live or self._pins[digest] > 0:
                return
            del self._pins[digest]
            self._loaded.discard(digest)
            self._engine.unload_adapter(digest)
