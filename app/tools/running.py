"""Runs one call of a tool within its limits: of time, of the size of its result, and of Stop.

The tool runs in a thread of its own, which is left behind where it does not come back in time: an
answer never waits for longer than the limit. Knows no model, and of a tool only how it is run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from pydantic import ValidationError

from app.error_log import log_unexpected
from app.tools.called import CallStatus
from engine.errors import BurnishError
from engine.messages import storable_text

RunTool = Callable[[dict[str, Any]], Any]
CallOutcome = tuple[str, CallStatus]
STOPPED_OUTCOME: CallOutcome = ("", "stopped")


@dataclass(frozen=True, slots=True)
class ToolLimits:
    """The limits of one call, and the number of times that an answer's model may call."""

    max_steps: int = 4
    timeout_seconds: float = 20.0
    max_result_chars: int = 4_000


class ToolRun:
    """One call, which `stop` ends early from any thread."""

    def __init__(
        self, name: str, run: RunTool, arguments: Mapping[str, Any], limits: ToolLimits
    ) -> None:
        self._name = name
        self._outcomes: SimpleQueue[CallOutcome] = SimpleQueue()
        self._limits = limits
        self._thread = threading.Thread(
            target=self._run, args=(run, arguments), name="burnish-tool", daemon=True
        )

    def outcome(self) -> CallOutcome:
        """Run the tool and return its result, or why there is none, with the status."""
        if self._outcomes.empty():  # else it was stopped before
            self._thread.start()
        seconds = self._limits.timeout_seconds
        try:
            return self._outcomes.get(timeout=seconds)
        except Empty:
            return f"The tool did not answer within {seconds:g} s.", "failed"

    def stop(self) -> None:
        """Wait for the result no longer."""
        self._outcomes.put(STOPPED_OUTCOME)

    def _run(self, run: RunTool, arguments: Mapping[str, Any]) -> None:
        outcome: CallOutcome = ("The tool failed; the server's log says where.", "failed")
        try:
            outcome = self._cut(str(run(dict(arguments)))), "done"
        except ValidationError as error:
            outcome = f"The arguments do not fit: {_problems(error)}.", "failed"
        except BurnishError as error:
            outcome = self._cut(str(error)), "failed"
        except Exception as error:  # noqa: BLE001 - a tool may raise anything, and no answer ends so
            log_unexpected(f"the tool {self._name} has failed", error)
        finally:
            self._outcomes.put(outcome)

    def _cut(self, text: str) -> str:
        """A text that can be stored and is not too long."""
        plain = storable_text(text)
        limit = self._limits.max_result_chars
        return plain if len(plain) <= limit else f"{plain[:limit]}\n… (cut at {limit} characters)"


def _problems(error: ValidationError) -> str:
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found)
