"""The place of the canary in a round: what the loop asks of it. `deploy.canary` implements it."""

from __future__ import annotations

from typing import Protocol

from deploy.releases.events import CanaryDecision


class CanaryStage(Protocol):
    """Gives a share of conversations to a candidate and decides by what people say of it."""

    def start(self, release: str) -> None:
        """Begin with a candidate. A loop that was killed calls it again, which changes nothing."""

    def decision(self) -> CanaryDecision:
        """The outcome by its figures; "running" while they decide nothing and votes may still come.

        The figures behind any other decision are in the release record then, as `CanaryFigures`.
        """
