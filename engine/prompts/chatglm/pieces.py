"""SentencePiece vocabularies: text to ids, pieces to text.

Knows pieces and bytes; knows no ids beyond the vocabulary and no chat format.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from engine.errors import ModelUnavailable

SPACE = "\u2581"  # how a piece writes a space
BEFORE = "\n"  # precedes decoded text, so that SentencePiece strips nothing


class SentencePieces:
    """The vocabulary in a file; raises `ModelUnavailable` if it cannot be read."""

    def __init__(self, file: Path) -> None:
        self._name = file.name
        try:
            self._model = SentencePieceProcessor(model_proto=file.read_bytes())
        except (OSError, RuntimeError) as error:
            raise ModelUnavailable(f"cannot read the vocabulary {file}: {error}") from error

    def __len__(self) -> int:
        return self._model.get_piece_size()

    @cached_property
    def longest_bytes(self) -> int:
        """Bytes of the longest piece."""
        return max(len(self.piece(token_id).encode()) for token_id in range(len(self)))

    def encode(self, text: str) -> list[int]:
        """Text to ids; names of control pieces in it are read as characters."""
        return list(self._model.encode(text))

    def id_of(self, piece: str) -> int:
        """The id of a piece that must be there; raises `ModelUnavailable`."""
        found = self._model.piece_to_id(piece)
        if self._model.id_to_piece(found) != piece:
            raise ModelUnavailable(f"{self._name} has no piece {piece!r}")
        return int(found)

    def piece(self, token_id: int) -> str:
        """The piece of an id, which must be in the vocabulary."""
        return str(self._model.id_to_piece(token_id))

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes of an id within a text; b"" for a control piece."""
        if self._model.is_byte(token_id):
            return bytes([int(self.piece(token_id)[3:-1], 16)])  # "<0x0A>"
        if self._model.is_control(token_id) or self._model.is_unknown(token_id):
            return b""
        return self.piece(token_id).replace(SPACE, " ").encode()

    def join(self, pieces: Sequence[str]) -> str:
        """Pieces to text, without the space in front; strings that are no pieces stay unchanged."""
        return str(self._model.decode(list(pieces))) if pieces else ""

    def join_window(self, pieces: Sequence[str]) -> str:
        """`join` for a window of a longer text, where only the first piece can lose its space."""
        text = str(self._model.decode([BEFORE, *pieces]))[len(BEFORE) :]
        return text[1:] if pieces and pieces[0].startswith(SPACE) else text
