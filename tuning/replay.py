"""Read good answers from a file of instruction data, a second source beside the snapshot.

The file is read by the importer, so every format that `burnish feedback import` knows will do.
Nothing goes into the store. Knows no tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import Conflict, InvalidInput
from engine.messages import Message
from engine.prompts.modes import PromptTemplate
from engine.storage import digest_file
from feedback_store.examples.types import IMPORTED, Side
from feedback_store.formats.importing import import_file
from feedback_store.records import ImportedTurn
from tuning.recipe_sections import ReplayRecipe


@dataclass(frozen=True, slots=True)
class Instruction:
    """A prompt and an answer that the file calls good."""

    prompt: tuple[Message, ...]
    answer: Side


def read_replay(replay: ReplayRecipe, beside: int, seed: int) -> list[Instruction]:
    """Draw answers from the file so that they are `replay.share` of all, with `beside` others.

    The draw depends on the seed; all answers are taken where the file has fewer. Raises
    `InvalidInput` for a file that cannot be read, `Conflict` for one that has changed since the
    recipe was read.
    """
    if replay.file is None:
        return []
    file = Path(replay.file)
    answers = _good_answers(file)
    if replay.digest is not None and digest_file(file) != replay.digest:
        raise Conflict(f"the replay file {file.name} has changed since the recipe was read")
    wanted = round(beside * replay.share / (1 - replay.share))
    # A generator of its own: the draw depends on nothing else that is random
    return random.Random(seed).sample(answers, min(wanted, len(answers)))  # noqa: S311


def _good_answers(file: Path) -> list[Instruction]:
    turns = ImportedTurns()
    import_file(turns, file)
    found = [
        Instruction(turn.prompt, Side(a.text, a.thought, a.complete, "", IMPORTED, None))
        for turn in turns.all
        for a in turn.answers
        if any(vote.vote > 0 for vote in a.votes)
    ]
    if not found:
        raise InvalidInput(f"{file.name} has no answers that it calls good, so none to replay")
    return found


class ImportedTurns:
    """An import target that keeps the turns in memory."""

    def __init__(self) -> None:
        self.all: list[ImportedTurn] = []

    def add_imported(
        self, turns: Iterable[ImportedTurn], _template: PromptTemplate, _user_id: str, /
    ) -> int:
        """Keep the turns in memory."""
        self.all.extend(turns)
        return len(self.all)
