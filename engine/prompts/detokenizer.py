"""Streaming detokenization: token ids to text, never half a character or half a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT_CHARACTER = "\ufffd"


class Detokenizer:
    """The growing text of one stream.

    `decode` turns ids into text. `prefill_ids` precede the first id: they are no part of the text,
    but decide whether it begins with a blank. Text is held back while it may still change: while
    its end is an unfinished UTF-8 sequence or could be the beginning of a stop string.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: tuple[str, ...] = (),
        prefill_ids: Sequence[int] = (),
    ) -> None:
        self._decode = decode
        self._stop = stop
        self._ids: list[int] = list(prefill_ids)
        self._window_start = 0  # ids before this are decoded and settled in `_text`
        self._settled_ids = len(prefill_ids)  # ids of the window that are settled too
        self._text = ""
        self._shown_chars = 0
        self.stopped_at = ""  # the stop string that was met

    @property
    def stopped(self) -> bool:
        """Return whether a stop string was met."""
        return bool(self.stopped_at)

    def push(self, token_id: int) -> str:
        """Add a token; returns the text to show now. Sets `stopped_at` on a stop string."""
        self._ids.append(token_id)
        self._settle()
        found = [(position, s) for s in self._stop if (position := self._text.find(s)) >= 0]
        if found:
            position, self.stopped_at = min(found)
            self._text = self._text[:position]
            return self._show(len(self._text))
        return self._show(len(self._text) - self._held_chars())

    def finish(self) -> str:
        """End the text; returns the rest of it, without half of a last character."""
        if not self.stopped:
            window = self._decode(self._ids[self._window_start :])
            self._text += window[self._settled_chars() :].rstrip(REPLACEMENT_CHARACTER)
            self._window_start, self._settled_ids = len(self._ids), 0
        return self._show(len(self._text))

    @property
    def text(self) -> str:
        """All text shown so far."""
        return self._text[: self._shown_chars]

    def _settle(self) -> None:
        """Append decoded text; the last token stays in the window, as context for spaces."""
        window = self._decode(self._ids[self._window_start :])
        if window.endswith(REPLACEMENT_CHARACTER):
            return
        self._text += window[self._settled_chars() :]
        self._window_start, self._settled_ids = len(self._ids) - 1, 1

    def _settled_chars(self) -> int:
        """Characters of the window's text that are already in `_text`, or are the prefill's."""
        settled = self._ids[self._window_start : self._window_start + self._settled_ids]
        return len(self._decode(settled)) if settled else 0

    def _held_chars(self) -> int:
        """The longest end of the text that a stop string begins with."""
        return max((_overlap(self._text, s) for s in self._stop), default=0)

    def _show(self, until: int) -> str:
        shown, self._shown_chars = self._shown_chars, max(until, self._shown_chars)
        return self._text[shown : self._shown_chars]


def _overlap(text: str, stop: str) -> int:
    """Characters of the longest end of `text` that `stop` begins with, without being all of it."""
    end = text[max(0, len(text) - len(stop) + 1) :]
    at = end.find(stop[0])
    while at >= 0:
        if stop.startswith(end[at:]):
            return len(end) - at
        at = end.find(stop[0], at + 1)
    return 0
