"""The tree of a conversation: a turn follows an answer, and has one answer or several.

Edits of a question are turns with the same parent; regenerations are answers to the same turn. A
branch is the way from the first question to an answer. Knows ids alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable


class Branches:
    """The tree. A turn that nothing answers is not in it: nobody could look at it."""

    def __init__(
        self, turns: Iterable[tuple[str, str | None]], answers: Iterable[tuple[str, str]]
    ) -> None:
        """Build the tree from (turn, parent answer) and (answer, turn), each oldest first.

        A turn whose parent is not there begins the conversation.
        """
        self.answers_of: dict[str, list[str]] = defaultdict(list)
        self.turn_of: dict[str, str] = {}
        for answer, turn in answers:
            self.answers_of[turn].append(answer)
            self.turn_of[answer] = turn
        self._age = {answer: age for age, answer in enumerate(self.turn_of)}
        self.parent_of: dict[str, str | None] = {}
        self._after: dict[str | None, list[str]] = defaultdict(list)
        for turn, parent in turns:
            if turn in self.answers_of:
                self.parent_of[turn] = parent if parent in self.turn_of else None
                self._after[self.parent_of[turn]].append(turn)

    def branch(self, answer: str) -> list[str]:
        """The answers from the first one to a given one."""
        answers: list[str] = []
        at: str | None = answer
        while at is not None:
            answers.append(at)
            at = self.parent_of[self.turn_of[at]]
        return answers[::-1]

    def siblings(self, turn: str) -> tuple[str, ...]:
        """The turns with the same parent, oldest first, itself included."""
        return tuple(self._after[self.parent_of[turn]])

    def newest_leaf(self, answer: str | None) -> str | None:
        """The newest leaf at or below an answer: one that no turn follows; `None`: of the tree."""
        leaves: list[str] = []
        below = [answer] if answer else self._answers_after(None)
        while below:
            each = below.pop()
            following = self._answers_after(each)
            below += following
            if not following:
                leaves.append(each)
        return max(leaves, key=self._age.__getitem__, default=None)

    def _answers_after(self, answer: str | None) -> list[str]:
        return [a for turn in self._after.get(answer, ()) for a in self.answers_of[turn]]
