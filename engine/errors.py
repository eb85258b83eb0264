"""The tree of errors. Each floor translates foreign exceptions to it in one place.

BurnishError
├── InvalidInput              the caller's mistake: 4xx, exit status 1
│   ├── InvalidText           empty, too long, NUL, lone surrogate
│   ├── PromptTooLong         the prompt leaves no room for an answer in the context
│   ├── UnknownId             no such turn, answer, snapshot, bundle, release (or not yours)
│   └── InvalidBundle         an adapter that must not reach the engine; lists every problem
├── Conflict                  another caller was first: two jobs, two promotions
├── Overloaded                the queue is full; try again later
│   └── ShuttingDown          the server is being stopped and takes no new questions
├── DeadlineExceeded          the answer was not done by its deadline
├── StorageFull               the disk is full or not writable
├── DatabaseUnavailable       the database is damaged, locked or does not answer
├── PeerUnavailable           another server that is asked does not answer as it should
├── ModelUnavailable          the base model cannot be found, read or held in memory
└── EngineFailure             the engine itself failed; the stream ends with this
"""

from __future__ import annotations


class BurnishError(Exception):
    """Root of the tree; `str(error)` is one clear sentence for a person."""


class InvalidInput(BurnishError):
    """The caller's mistake."""


class InvalidText(InvalidInput):
    """Text that cannot be stored or tokenized."""


class PromptTooLong(InvalidInput):
    """The prompt leaves no room for an answer in the context."""


class UnknownId(InvalidInput):
    """Nothing has that id, or it belongs to another account."""


class InvalidBundle(InvalidInput):
    """An adapter bundle that is refused; `problems` lists every reason found."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("adapter bundle refused: " + "; ".join(problems))
        self.problems = problems


class Conflict(BurnishError):
    """Another caller was first."""


class Overloaded(BurnishError):
    """The queue is full; another try is worth while after `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ShuttingDown(Overloaded):
    """The server is being stopped and takes no new questions."""


class DeadlineExceeded(BurnishError):
    """The answer was not done by its deadline."""


class StorageFull(BurnishError):
    """The disk is full or not writable."""


class DatabaseUnavailable(BurnishError):
    """The database is damaged, locked or does not answer."""


class PeerUnavailable(BurnishError):
    """Another server that is asked does not answer as it should."""


class ModelUnavailable(BurnishError):
    """The base model cannot be found, read or held in memory."""


class EngineFailure(BurnishError):
    """The engine itself failed."""
