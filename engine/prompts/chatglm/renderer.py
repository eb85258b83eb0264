"""What every renderer of the family offers, whatever its tokenizer and chat format.

Knows how a conversation falls into rounds and how an answer is shown and cleaned up; knows no ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from engine.messages import Message
from engine.prompts.detokenizer import Detokenizer
from engine.prompts.render import Rendered


class ChatGLMRenderer(ABC):
    """Messages to ids, and the ids of an answer to text.

    `end_ids` end an answer when the model makes one of them; `end_id`, one of these, is what
    `completion` ends with. Ids from `token_count` on are no token; a token stands for
    `longest_token_bytes` of text at most.
    """

    thinks_unasked: bool | None = None  # no switch: `thinking` changes nothing below

    def __init__(
        self, end_id: int, end_ids: frozenset[int], token_count: int, longest_token_bytes: int
    ) -> None:
        self.end_id = end_id
        self.end_ids = end_ids
        self.token_count = token_count
        self.longest_token_bytes = longest_token_bytes

    @abstractmethod
    def prompt(
        self, messages: Sequence[Message], *, thinking: bool | None = None
    ) -> tuple[int, ...]:
        """Ids of the prompt, up to where the assistant's answer begins."""

    def opening(self, messages: Sequence[Message], *, thinking: bool | None = None) -> str:
        """The think block that the prompt of these messages opens: none of the family does."""
        return ""

    def completion(self, text: str, *, complete: bool = True, opening: str = "") -> tuple[int, ...]:
        """Ids of an answer as the model would have made it; its end token last if it ended.

        `opening` is always "" here.
        """
        ids = self._answer(text)
        return (*ids, self.end_id) if complete else tuple(ids)

    def pair(
        self, messages: Sequence[Message], completion: str, *, complete: bool = True
    ) -> Rendered:
        """A prompt with its completion."""
        return Rendered(self.prompt(messages), self.completion(completion, complete=complete))

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer's ids, without special ids and ids that are not in the vocabulary.

        Fit for windows of a stream: text that ends in half a character ends in U+FFFD, and what
        a first id contributes does not depend on the ids after it. The blank line which opens an
        answer in some formats is part of the text; `detokenizer` and `clean_answer` leave it out.
        """

    def detokenizer(
        self, stop: tuple[str, ...] = (), prefill_ids: Sequence[int] = (), opening: str = ""
    ) -> Detokenizer:
        """The growing text of one answer, from its first visible token on or from `prefill_ids`.

        `opening` is always "" here.
        """
        return AnswerDetokenizer(self.decode, stop, prefill_ids)

    def ids_without_token(self, rows: int) -> list[int]:
        """Of the ids below `rows`, those that are no token: rows that pad the vocabulary."""
        return list(range(self.token_count, rows))

    def clean_answer(self, text: str) -> str:
        """A finished answer as the published chat shows it."""
        return text.strip().replace("[[训练时间]]", "2023年")

    @abstractmethod
    def _answer(self, text: str) -> list[int]:
        """Ids of an answer without its end token."""


class AnswerDetokenizer(Detokenizer):
    """A detokenizer that leaves out the blank tokens before the first visible one.

    Answers of ChatGLM3 and GLM-4 open with a blank line, where the name of a tool would stand; it
    must neither be shown nor be taken for the stop string "\\n". After a prefill, nothing is left
    out.
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
        """Add a token; returns the text that may be shown now. Sets `stopped` on a stop string."""
        self._begun = self._begun or bool(self._decode([token_id]).strip())
        return super().push(token_id) if self._begun else ""


def rounds(messages: Sequence[Message]) -> tuple[list[tuple[str, str]], str]:
    """(the answered rounds as (question, answer), the question that awaits its answer).

    For formats without a system role: a system text stands in front of the question after it, as
    plain text on a line of its own; so do further questions without an answer in between.
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
