"""Messages to token ids by a chat template, for serving, tuning and evaluation alike.

A control token that a person types (`<|im_end|>`) is encoded as ordinary characters, so that only
the chat template itself can open or close a message. Messages that the template would refuse are
rewritten first (`conversation_shape.py`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from engine.errors import InvalidInput, InvalidText
from engine.messages import Message, tools_of
from engine.prompts.calls.formats import HERMES, CallFormat
from engine.prompts.calls.messages import TemplateRow, as_plain, template_messages, without_tools
from engine.prompts.conversation_shape import shape
from engine.prompts.detokenizer import Detokenizer
from engine.prompts.reasoning import after_opening, opening_of
from engine.prompts.template_check import TemplateAbilities
from engine.tools import spaced_json, with_strings_changed

PRIVATE_USE = [*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE)]


class Tokenizer(Protocol):
    """The interface of a tokenizer that the renderer needs; those of transformers have it."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, AddedToken]:
        """The tokens beside the plain vocabulary, control tokens among them."""

    @property
    def eos_token_id(self) -> int:
        """The token that ends an answer."""

    def apply_chat_template(
        self,
        conversation: list[TemplateRow],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        **variables: object,
    ) -> str:
        """The text of a conversation by the checkpoint's own template."""

    def encode(
        self, text: str, *, add_special_tokens: bool, split_special_tokens: bool
    ) -> list[int]:
        """Text to ids."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Ids to text."""

    def get_vocab(self) -> dict[str, int]:
        """Every token, added ones too, with its id."""


class AddedToken(Protocol):
    """A token of `added_tokens_decoder`."""

    content: str
    special: bool


class OpenedPrompt(NamedTuple):
    """The token ids of a prompt, and the think block that its end opens; "" for none."""

    ids: tuple[int, ...]
    opening: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of a prompt and of its completion; the loss covers the completion alone."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]

    @property
    def input_ids(self) -> list[int]:
        """Prompt and completion, as the model reads them."""
        return [*self.prompt_ids, *self.completion_ids]

    @property
    def loss_mask(self) -> list[int]:
        """1 for each completion token, 0 for each prompt token; as long as `input_ids`."""
        return [0] * len(self.prompt_ids) + [1] * len(self.completion_ids)


class Renderer:
    """Implements `ChatRenderer` with a tokenizer of transformers and its chat template."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        end_ids: frozenset[int] | None = None,
        *,
        end_id: int | None = None,
        abilities: TemplateAbilities | None = None,
        embedded_tokens: int | None = None,
    ) -> None:
        """`end_ids` end an answer, and `completion` ends with `end_id`; both default to the
        tokenizer's end token. Ids below `embedded_tokens` have an embedding."""
        self._tokenizer = tokenizer
        self._end_id = tokenizer.eos_token_id if end_id is None else end_id
        self.end_ids = frozenset([self._end_id]) if end_ids is None else end_ids
        self._abilities = abilities or TemplateAbilities()
        self._embedded_tokens = embedded_tokens
        self._specials = [
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        ]
        self._markup = {
            token_id: token.content
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.special and token.content in self.call_format.markup
        }
        # A lock, since transformers sets `split_special_tokens` on the tokenizer itself
        self._encoding = threading.Lock()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, untyped as transformers' own types do not agree; its template is set."""
        return self._tokenizer

    @cached_property
    def longest_token_bytes(self) -> int:
        """See `ChatRenderer`."""
        return max(len(token.encode()) for token in self._tokenizer.get_vocab())

    @property
    def thinks_unasked(self) -> bool | None:
        """See `ChatRenderer`."""
        return self._abilities.thinks_unasked

    @property
    def call_format(self) -> CallFormat:
        """See `ChatRenderer`; a template that knows no tools is shown them as text."""
        return self._abilities.calls or HERMES

    @property
    def added_tokens(self) -> Mapping[str, int]:
        """See `ChatRenderer`."""
        return {t.content: i for i, t in self._tokenizer.added_tokens_decoder.items()}

    def prompt(
        self, messages: Sequence[Message], *, thinking: bool | None = None
    ) -> tuple[int, ...]:
        """See `ChatRenderer`; `thinking` is the template's `enable_thinking`."""
        return self.opened_prompt(messages, thinking=thinking).ids

    def raw(self, text: str) -> tuple[int, ...]:
        """See `ChatRenderer`."""
        ids = self._encode(text, plain=False, add_special_tokens=True)
        self._require_embedded(ids)
        return tuple(ids)

    def opened_prompt(
        self, messages: Sequence[Message], *, thinking: bool | None = None
    ) -> OpenedPrompt:
        """See `ChatRenderer`.

        Templates of R1 distillates always open a block; others do unless a message forbids to
        think.
        """
        text, escaped = self._render(messages, thinking)
        ids: list[int] = []
        for piece, is_plain in escaped.pieces(text):
            ids += self._encode(piece, plain=is_plain)
        self._require_embedded(ids)
        return OpenedPrompt(tuple(ids), opening_of(text))

    def completion(self, text: str, *, complete: bool = True, opening: str = "") -> tuple[int, ...]:
        """See `ChatRenderer`: the ids that the model would have generated."""
        ids = self._encode_answer(after_opening(text, opening) if opening else text)
        ids += [self._end_id] if complete else []
        self._require_embedded(ids)
        return tuple(ids)

    def pair(
        self, messages: Sequence[Message], completion: str, *, complete: bool = True
    ) -> Rendered:
        """See `ChatRenderer`."""
        prompt, opening = self.opened_prompt(messages)
        return Rendered(prompt, self.completion(completion, complete=complete, opening=opening))

    def decode(self, ids: Sequence[int]) -> str:
        """See `ChatRenderer`; control tokens that mark a call are a part of the text."""
        return "".join(
            "".join(map(self._markup.__getitem__, group))
            if is_markup
            else self._tokenizer.decode(list(group), skip_special_tokens=True)
            for is_markup, group in groupby(ids, self._markup.__contains__)
        )

    def token_text(self, token_id: int) -> str:
        """See `ChatRenderer`."""
        return self._tokenizer.decode([token_id], skip_special_tokens=False)

    def detokenizer(
        self, stop: tuple[str, ...] = (), prefill_ids: Sequence[int] = (), opening: str = ""
    ) -> Detokenizer:
        """See `ChatRenderer`.

        Without `prefill_ids`, the text begins with the think block that the prompt has opened
        (`opening`), though the model did not write it: so the text shows where the thought ends,
        and `completion` is its inverse.
        """
        if prefill_ids:
            return Detokenizer(self.decode, stop, prefill_ids)
        return OpenedDetokenizer(self.decode, stop, opening)

    def ids_without_token(self, rows: int) -> list[int]:
        """See `ChatRenderer`."""
        return sorted(set(range(rows)) - set(self._tokenizer.get_vocab().values()))

    def _render(self, messages: Sequence[Message], thinking: bool | None) -> tuple[str, _Escape]:
        """The text of the template, with control-token look-alikes hidden by the `_Escape`."""
        rows, tools = self._template_rows(messages)
        escaped = _Escape(self._specials, spaced_json([rows, tools]))
        variables: dict[str, Any] = {} if thinking is None else {"enable_thinking": thinking}
        if tools:
            variables["tools"] = with_strings_changed(tools, escaped.hide)
        try:
            text = self._tokenizer.apply_chat_template(
                with_strings_changed(rows, escaped.hide),
                tokenize=False,
                add_generation_prompt=True,
                **variables,
            )
        except Exception as error:  # a template is untrusted code and may raise anything
            raise InvalidInput(f"the model's chat template refuses this: {error}") from error
        return text, escaped

    def _template_rows(
        self, messages: Sequence[Message]
    ) -> tuple[list[TemplateRow], list[TemplateRow]]:
        """The messages and the tools as the template takes them."""
        if self._abilities.calls is None:
            return template_messages(shape(as_plain(messages), self._abilities), [], HERMES), []
        tools = [tool.as_dict() for tool in tools_of(messages)]
        shaped = shape(without_tools(messages), self._abilities)
        return template_messages(shaped, tools, self._abilities.calls), tools

    def _require_embedded(self, ids: Sequence[int]) -> None:
        limit = self._embedded_tokens
        beyond = [i for i in ids if i >= limit] if limit is not None else []
        if beyond:
            token = self._tokenizer.decode(beyond[:1], skip_special_tokens=False)
            raise InvalidInput(
                f"the tokenizer makes {token!r} token {beyond[0]}, and the model knows tokens "
                f"below {limit} alone; its tokenizer and its weights do not fit"
            )

    def _encode_answer(self, text: str) -> list[int]:
        """Ids of a model's text. Of the control tokens in it, only those that mark a call are more
        than their characters."""
        if not any(token in text for token in self._markup.values()):
            return self._encode(text, plain=True)
        others = set(self._specials) - set(self._markup.values())
        among = "|".join(map(re.escape, sorted(others, key=len, reverse=True))) or r"(?!)"
        pieces = filter(None, re.split(f"({among})", text))
        return [i for piece in pieces for i in self._encode(piece, plain=piece in others)]

    def _encode(self, text: str, *, plain: bool, add_special_tokens: bool = False) -> list[int]:
        with self._encoding:
            return self._tokenizer.encode(
                text, add_special_tokens=add_special_tokens, split_special_tokens=plain
            )


class OpenedDetokenizer(Detokenizer):
    """The growing text of an answer whose first words are in the prompt.

    Stop strings are searched in the model's own words alone.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...], opening: str
    ) -> None:
        super().__init__(decode, stop)
        self._unshown = opening  # until the model has written something
        self._opening = opening

    def push(self, token_id: int) -> str:
        """See `Detokenizer`."""
        return self._take_opening() + super().push(token_id)

    def finish(self) -> str:
        """See `Detokenizer`."""
        return self._take_opening() + super().finish()

    @property
    def text(self) -> str:
        """See `Detokenizer`."""
        return ("" if self._unshown else self._opening) + super().text

    def _take_opening(self) -> str:
        opening, self._unshown = self._unshown, ""
        return opening


class _Escape:
    """Hides control-token look-alikes in contents from the template, and restores them after it.

    Each look-alike becomes a mark that occurs in no content; ordinary text is unchanged, so its
    ids are exactly those of the checkpoint's own template.
    """

    def __init__(self, specials: Sequence[str], contents: str) -> None:
        self._specials = sorted(specials, key=len, reverse=True)
        unused = (c for c in map(chr, PRIVATE_USE) if c not in contents)
        self._mark = next(unused, "")
        if not self._mark:
            raise InvalidText("the messages use every private-use character there is")

    def hide(self, content: str) -> str:
        for number, special in enumerate(self._specials):
            content = content.replace(special, f"{self._mark}{number}{self._mark}")
        return content

    def pieces(self, text: str) -> list[tuple[str, bool]]:
        """(piece, whether it is encoded as plain text), in order and without empty pieces."""
        parts = text.split(self._mark)
        marked = [
            (self._specials[int(part)], True) if index % 2 else (part, False)
            for index, part in enumerate(parts)
        ]
        return [(piece, plain) for piece, plain in marked if piece]
