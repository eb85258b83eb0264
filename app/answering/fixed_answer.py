"""An answer in words that are known before the model is asked, as a stream like the engine's."""

from __future__ import annotations

from collections.abc import Iterator

from engine.request import Finished, StreamEvent, TextDelta


class FixedAnswer:
    """A stream of one text; no token of it is the model's."""

    prompt_tokens = 0

    def __init__(self, text: str) -> None:
        self._events: Iterator[StreamEvent] = iter(
            (TextDelta(text), Finished("stop", text, prompt_tokens=0, completion_tokens=0))
        )

    def __iter__(self) -> Iterator[StreamEvent]:
        return self._events

    def cancel(self) -> None:
        """Do nothing: it ends by itself."""
