"""Logs unexpected errors by type and traceback, without their messages.

An exception's text may quote what people wrote: the values of a SQL statement, a refused field, an
unreadable message.
"""

from __future__ import annotations

import logging
import threading
import traceback

_log = logging.getLogger(__name__)


def log_unexpected(what: str, error: BaseException) -> None:
    """Log that `what` failed, and where."""
    _log.error("%s\n%s", what, traceback_without_messages(error))


def traceback_without_messages(error: BaseException) -> str:
    """Return a traceback without the exceptions' texts, the cause first."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    frames = "".join(traceback.format_tb(error.__traceback__))
    own = f"{frames}{type(error).__module__}.{type(error).__qualname__}"
    return own if before is None else f"{traceback_without_messages(before)}\nthen\n{own}"


class HideExceptionMessages(logging.Filter):
    """Removes the exceptions' texts from a library's log records."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the record's traceback; always returns True."""
        if record.exc_info and record.exc_info[1] is not None:
            where = traceback_without_messages(record.exc_info[1])
            record.msg = f"{record.getMessage().strip()}\n{where}"
            record.args, record.exc_info, record.exc_text = (), None, None
        return True


def install_thread_excepthook() -> None:
    """Make uncaught errors of threads be logged without their messages."""

    def report(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None and ended.exc_type is not SystemExit:
            name = ended.thread.name if ended.thread else "unknown"
            log_unexpected(f"thread {name} has failed", ended.exc_value)

    threading.excepthook = report
