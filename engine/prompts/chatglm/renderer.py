"""The common part of the ChatGLM renderers, whatever their tokenizer and chat format.

Knows the rounds of a conversation and the clean-up of an answer; knows no ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from engine.messages import Message
from engine.prompts.calls.formats import HERMES, CallFormat
from engine.prompts.calls.messages import as_plain
from engine.prompts.detokenizer import Detokenizer
from engine.prompts.render import OpenedPrompt, Rendered


class ChatGLMTokenizer(Protocol):
    """The part of a version's tokenizer that its renderer needs whatever the version."""

    @property
    def vocab_size(self) -> int:
        """The number of ids; those from it on are no token."""

    @property
    def longest_token_bytes(self) -> int:
        """The bytes of text that a token stands for at most."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text with the special ids of the published code that begin or end one."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for within a text; b"" for one that is no text."""

    def decode_window(self, ids: Sequence[int]) -> str:
        """Text of a part of an answer; see `ChatGLMRenderer.decode`."""


class ChatGLMRenderer(ABC):
    """Implements `ChatRenderer`.

    `end_ids` end an answer when the model generates one of them; `completion` ends with `end_id`,
    one of these.
    """

    thinks_unasked: bool | None = None  # no switch: `thinking` changes nothing below
    call_format: CallFormat = HERMES
    added_tokens: Mapping[str, int] = MappingProxyType({})  # none stands in markup

    def __init__(
        self, tokenizer: ChatGLMTokenizer, end_id: int, other_end_ids: Collection[int] = ()
    ) -> None:
        self.tokenizer = tokenizer
        self.end_id = end_id
        self.end_ids = frozenset([end_id, *other_end_ids])
        self.token_count = tokenizer.vocab_size
        self.longest_token_bytes = tokenizer.longest_token_bytes

    def prompt(
        self, messages: Sequence[Message], *, thinking: bool | None = None
    ) -> tuple[int, ...]:
        """See `ChatRenderer`; tools are shown as text unless the family has a form for them."""
        return self.chat_ids(as_plain(messages))

    @abstractmethod
    def chat_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the prompt of messages without tools."""

    def raw(self, text: str) -> tuple[int, ...]:
        """See `ChatRenderer`: ids as the published wrapper makes them."""
        return tuple(self.tokenizer.encode(text))

    def opened_prompt(
        self, messages: Sequence[Message], *, thinking: bool | None = None
    ) -> OpenedPrompt:
        """See `ChatRenderer`; no prompt of the family opens a think block."""
        return OpenedPrompt(self.prompt(messages), "")

    def completion(self, text: str, *, complete: bool = True, opening: str = "") -> tuple[int, ...]:
        """See `ChatRenderer`; `opening` is always "" here."""
        ids = self._answer(text)
        return (*ids, self.end_id) if complete else tuple(ids)

    def pair(
        self, messages: Sequence[Message], completion: str, *, complete: bool = True
    ) -> Rendered:
        """See `ChatRenderer`."""
        return Rendered(self.prompt(messages), self.completion(completion, complete=complete))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer's ids, without special ids and ids that are not in the vocabulary.

        Suitable for windows of a stream: half a character at the end becomes U+FFFD, and the text
        of the first id does not depend on the ids after it. The blank line that opens an answer in
        some formats is part of the text; `detokenizer` and `clean_answer` remove it.
        """
        return self.tokenizer.decode_window(ids)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for within a text; b"" for one that is no text."""
        return self.tokenizer.token_bytes(token_id)

    def token_text(self, token_id: int) -> str:
        """See `ChatRenderer`; a control token is shown by its id."""
        return self.decode([token_id]) or f"<{token_id}>"

    def detokenizer(
        self, stop: tuple[str, ...] = (), prefill_ids: Sequence[int] = (), opening: str = ""
    ) -> Detokenizer:
        """See `ChatRenderer`; `opening` is always "" here."""
        return AnswerDetokenizer(self.decode, stop, prefill_ids)

    def ids_without_token(self, rows: int) -> list[int]:
        """See `ChatRenderer`."""
        return list(range(self.token_count, rows))

    def clean_answer(self, text: str) -> str:
        """A finished answer as the published chat shows it."""
        return text.strip().replace("[[训练时间]]", "2023年")

    @abstractmethod
    def _answer(self, text: str) -> list[int]:
        """Ids of an answer without its end token."""


class AnswerDetokenizer(Detokenizer):
    """A detokenizer that skips the blank tokens before the first visible one.

    Answers of ChatGLM3 and GLM-4 open with a blank line, the place of a tool's name; it must
    neither be shown nor be taken for the stop string "\\n". After a prefill, nothing is skipped.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: tuple[str, ...] = (),
        prefill_ids: Sequence[int] = (),
    ) -> None:
        super().__init__(decode, stop, prefill_ids)
        self._begun = bool(prefill_ids)

    def push(self, token_id: int) -> str:
        """See `Detokenizer`."""
        self._begun = self._begun or bool(self._decode([token_id]).strip())
        return super().push(token_id) if self._begun else ""


def rounds(messages: Sequence[Message]) -> tuple[list[tuple[str, str]], str]:
    """(the answered rounds as (question, answer), the question that awaits its answer).

    For formats without a system role: a system text, as plain text on a line of its own, precedes
    the question after it; so do further questions without an answer in between.
    """
    answered = []
    asked: list[str] = []
    for message in messages:
        if message.role == "assistant":
            answered.append(("\n".join(asked), message.content))
            asked = []
        elif message.content or message.role == "user":
            asked.append(message.content)
    return answered, "\n".join(asked)
