"""The work on one round: each stage once, its time counted, its failures kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from deploy.rounds.round import ENDED, FAILED, PAUSED, LoopEvent, Outcome, Round, StageName
from deploy.rounds.store import RoundStore
from deploy.rounds.timetable import MAX_ATTEMPTS
from engine.errors import Conflict, InvalidInput

StageDocument = Mapping[str, Any]


class Unfinished(Exception):
    """The round stays where it is and goes on later: quiet hours, or a canary that runs."""


class RoundEnded(Exception):
    """The round ends before its last stage."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


class RoundWork:
    """One round under the lease; `check` raises where the next stage may not begin."""

    def __init__(
        self,
        rounds: RoundStore,
        round_: Round,
        check: Callable[[Round], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rounds = rounds
        self._check = check
        self._monotonic = monotonic
        self._begun_at = monotonic()
        self.stage: StageName = "snapshot"
        self.round = round_

    @property
    def seconds(self) -> float:
        """The seconds since the stage began or was resumed."""
        return self._monotonic() - self._begun_at

    def once(self, stage: StageName, do: Callable[[], StageDocument]) -> StageDocument:
        """Do a stage and record what it returns, unless that is recorded already."""
        if (done := self.round.stages.get(stage)) is not None:
            return done
        self.stage, self._begun_at = stage, self._monotonic()
        if self.ended is None:
            self._check(self.round)
        document = {**do(), "seconds": round(self.seconds, 1)}
        self.record(stage, document)
        return document

    def record(self, kind: str, document: StageDocument) -> None:
        """Append an event of this round."""
        self._rounds.record(self.round.number, kind, document)
        self.round = next(
            each for each in self._rounds.history().rounds if each.number == self.round.number
        )

    def pause(self, reason: str) -> None:
        """Record that the round goes on later, and the seconds that were worked."""
        document = {"stage": self.stage, "reason": reason, "seconds": round(self.seconds, 1)}
        self.record(PAUSED, document)

    def fail(self, error: Exception) -> None:
        """Record a failed attempt; the round ends after `MAX_ATTEMPTS`, or at once where the input
        is at fault. A conflict with other work is no failure."""
        if isinstance(error, Conflict):
            return
        text = str(error) or type(error).__name__
        document = {"stage": self.stage, "error": text, "seconds": round(self.seconds, 1)}
        self.record(FAILED, document)
        if isinstance(error, InvalidInput) or len(self.round.failures) >= MAX_ATTEMPTS:
            self.end("failed", text)

    def end(self, outcome: Outcome, reason: str) -> None:
        """Record the round's outcome; its report is then its last stage."""
        self.record(ENDED, {"outcome": outcome, "reason": reason})

    @property
    def ended(self) -> LoopEvent | None:
        """The round's outcome, if it has one."""
        return self.round.ended
