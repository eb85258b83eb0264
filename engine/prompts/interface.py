"""The interface that every renderer offers, whatever its tokenizer and chat format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from engine.messages import Message
from engine.prompts.calls.formats import CallFormat
from engine.prompts.detokenizer import Detokenizer
from engine.prompts.render import OpenedPrompt, Rendered


class ChatRenderer(Protocol):
    """Messages to token ids, and the ids of an answer to text."""

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""

    @property
    def longest_token_bytes(self) -> int:
        """The most bytes of UTF-8 text that one token stands for."""

    @property
    def thinks_unasked(self) -> bool | None:
        """Return whether the model thinks unless told not to; None: it has no such switch."""

    @property
    def call_format(self) -> CallFormat:
        """The format in which the model writes calls of functions."""

    @property
    def added_tokens(self) -> Mapping[str, int]:
        """Ids of the tokens beside the plain vocabulary that markup may consist of, by text."""

    def prompt(
        self, messages: Sequence[Message], *, thinking: bool | None = None
    ) -> tuple[int, ...]:
        """Ids of the prompt, up to where the assistant's answer begins.

        Raises `InvalidInput` where the chat template refuses the messages.
        """

    def raw(self, text: str) -> tuple[int, ...]:
        """Ids of a text as the tokenizer encodes any: its bos token where it adds one, control
        tokens by their names. No chat template renders it."""

    def opened_prompt(
        self, messages: Sequence[Message], *, thinking: bool | None = None
    ) -> OpenedPrompt:
        """The ids of `prompt`, and the think block that they open; renders the messages once."""

    def completion(self, text: str, *, complete: bool = True, opening: str = "") -> tuple[int, ...]:
        """Ids of an answer that follows `opening`; its end token last if it is complete."""

    def pair(
        self, messages: Sequence[Message], completion: str, *, complete: bool = True
    ) -> Rendered:
        """A prompt with its completion."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer's ids, control tokens left out."""

    def token_text(self, token_id: int) -> str:
        """Text of one token, for a person to read; control tokens are shown, too."""

    def detokenizer(
        self, stop: tuple[str, ...] = (), prefill_ids: Sequence[int] = (), opening: str = ""
    ) -> Detokenizer:
        """The growing text of one answer, which continues `prefill_ids` or `opening`."""

    def ids_without_token(self, rows: int) -> list[int]:
        """The ids below `rows` that are no token: they only pad the vocabulary."""
