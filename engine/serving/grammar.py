"""Answers in a given language: JSON of a schema, a regular expression, a grammar (llguidance).

Before each token, those that lead out of the language are forbidden; so an answer that ends by
itself is always a sentence of it. Knows vocabularies and grammars; knows no batches, samplers or
models.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark
from tokenizers import Tokenizer
from torch import Tensor

from engine.errors import InvalidInput
from engine.prompts.calls.grammar import arguments_schema, call_grammar
from engine.prompts.chatglm.renderer import ChatGLMRenderer
from engine.prompts.interface import ChatRenderer
from engine.prompts.render import Renderer
from engine.request import MAX_GRAMMAR_CHARS, Grammar
from engine.tools import Tool, ToolChoice

MASK_BITS = 32  # of a word of llguidance's mask
MINUS_INFINITY = np.float32(-np.inf).view(np.int32)  # the bits of the number
# Between the tokens of JSON: nothing, a blank, or a line end with an indentation. Without a limit a
# small model may write blanks until its last token
BETWEEN_TOKENS = r"( |\n {0,16})?"


class GrammarCompiler:
    """Compiles grammars over one renderer's vocabulary, of `rows` logits. Safe among threads."""

    def __init__(self, renderer: ChatRenderer, rows: int) -> None:
        self._renderer = renderer
        self._rows = rows
        self._preparing = threading.Lock()

    def compile(self, grammar: Grammar) -> GrammarMatcher:
        """A matcher at the beginning of an answer; raises `InvalidInput` with what is wrong."""
        matcher = self._matcher_or_problem(grammar)
        if isinstance(matcher, str):
            raise InvalidInput(f"the grammar ({grammar.kind}) is refused: {matcher}")
        return GrammarMatcher(matcher, self._rows)

    def compile_calls(
        self, tools: Sequence[Tool], choice: ToolChoice, *, opening: str, may_think: bool
    ) -> GrammarMatcher:
        """A matcher of an answer that may or must call tools.

        See `call_grammar`. Raises `InvalidInput` with the tool whose schema cannot be kept.
        """
        text = call_grammar(
            self._renderer.call_format,
            tools,
            choice,
            self._control_tokens,
            opening=opening,
            may_think=may_think,
        )
        if len(text) > MAX_GRAMMAR_CHARS:
            raise InvalidInput(f"the tools may have at most {MAX_GRAMMAR_CHARS} characters in all")
        matcher = self._matcher_or_problem(Grammar("lark", text))
        if isinstance(matcher, str):
            self._require_schemas(tools)
            raise InvalidInput(f"the tools are refused: {matcher}")
        return GrammarMatcher(matcher, self._rows)

    def _require_schemas(self, tools: Sequence[Tool]) -> None:
        for tool in tools:
            schema = Grammar("json_schema", json.dumps(arguments_schema(tool)))
            if isinstance(problem := self._matcher_or_problem(schema), str):
                raise InvalidInput(f"the parameters of the tool {tool.name} are refused: {problem}")

    def _matcher_or_problem(self, grammar: Grammar) -> LLMatcher | str:
        try:
            matcher = LLMatcher(self._vocabulary, _compiled(grammar), log_level=0)
            problem = matcher.get_error() if matcher.is_error() else ""
        except (ValueError, GbnfToLarkError) as error:
            problem = str(error)
        return _first_line(problem) if problem else matcher

    @property
    def _vocabulary(self) -> LLTokenizer:
        with self._preparing:  # it takes a second, once
            return self._tokenizer

    @cached_property
    def _control_tokens(self) -> dict[str, int]:
        """The added tokens that no regular expression of llguidance matches, by their text."""
        is_control, added = self._vocabulary.is_special_token, self._renderer.added_tokens
        return {text: token_id for text, token_id in added.items() if is_control(token_id)}

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        ends = sorted(self._renderer.end_ids)
        if isinstance(self._renderer, ChatGLMRenderer):
            vocabulary = _Vocabulary(self._renderer, self._rows)
            return LLTokenizer(TokenizerWrapper(vocabulary), n_vocab=self._rows, eos_token=ends)
        assert isinstance(self._renderer, Renderer), "there are two kinds of renderers"
        return LLTokenizer(_backend(self._renderer), n_vocab=self._rows, eos_token=ends)


def _backend(renderer: Renderer) -> str:
    """The tokenizer as JSON of the `tokenizers` library.

    `llguidance.hf.from_tokenizer` reads the same, and imports transformers. Raises `ValueError` for
    a tokenizer of another library.
    """
    backend = copy(getattr(renderer.tokenizer, "backend_tokenizer", None))
    if not isinstance(backend, Tokenizer):
        raise ValueError("its tokenizer is not of the tokenizers library")
    backend.no_padding()
    backend.no_truncation()
    text: str = backend.to_str()
    return text


class GrammarMatcher:
    """The place of one answer in its grammar."""

    def __init__(self, matcher: LLMatcher, rows: int) -> None:
        self._matcher = matcher
        self._rows = rows
        self._mask = np.zeros((rows + MASK_BITS - 1) // MASK_BITS, dtype=np.int32)

    def allow(self, logits: Tensor) -> Tensor:
        """Logits (vocabulary,) with -inf for the tokens that lead out of the language.

        Raises `InvalidInput` where the grammar has become too large to go on.
        """
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._require_sound()
        bits = np.unpackbits(self._mask.view(np.uint8), count=self._rows, bitorder="little")
        # 0 for an allowed token, else -inf, without branches: where allowed and forbidden tokens
        # alternate, as within a string of JSON, masked_fill and where take up to ten times as long
        penalty = (bits.astype(np.int32) - 1) & MINUS_INFINITY
        return torch.from_numpy(penalty.view(np.float32)).add_(logits)

    def advance_if_allowed(self, token_id: int) -> bool:
        """Take a token if the language allows it; returns whether it does."""
        allowed = self._matcher.try_consume_tokens([token_id]) == 1
        self._require_sound()
        return allowed

    def advance(self, token_id: int) -> None:
        """Take a token that was allowed."""
        self._matcher.consume_token(token_id)
        self._require_sound()

    @property
    def is_complete(self) -> bool:
        """Return whether nothing but an end token may follow."""
        return self._matcher.is_stopped()

    def _require_sound(self) -> None:
        if self._matcher.is_error():
            raise InvalidInput(
                f"the grammar cannot go on: {_first_line(self._matcher.get_error())}"
            )


class _Vocabulary:
    """A vocabulary of ChatGLM as llguidance reads it; what is no text is a special token there."""

    bos_token_id = None

    def __init__(self, renderer: ChatGLMRenderer, rows: int) -> None:
        texts = [renderer.token_bytes(token_id) for token_id in range(rows)]
        self.tokens = [text or f"<[{number}]>".encode() for number, text in enumerate(texts)]
        self.special_token_ids = [number for number, text in enumerate(texts) if not text]
        self.eos_token_id = renderer.end_id
        # Of two tokens that are alike, the later one: the earlier one stands for a single byte
        self._ids = {text: number for number, text in enumerate(texts) if text}

    def __call__(self, text: bytes) -> Sequence[int]:
        """Ids of a part of an answer, the longest tokens first.

        SentencePiece's own ids would begin with a blank, as if the part stood alone.
        """
        ids: list[int] = []
        while text:
            for length in range(min(len(text), self._longest), 0, -1):
                if (token_id := self._ids.get(text[:length])) is not None:
                    ids.append(token_id)
                    break
            text = text[length:]
        return ids

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids))


def _compiled(grammar: Grammar) -> str:
    """A grammar in llguidance's own form; raises `ValueError` or `GbnfToLarkError`."""
    if grammar.kind == "json_schema":
        options: Any = {"whitespace_pattern": BETWEEN_TOKENS}
        return LLMatcher.grammar_from_json_schema(grammar.text, overrides=options)
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.text)
    return LLMatcher.grammar_from_lark(
        gbnf_to_lark(grammar.text) if grammar.kind == "gbnf" else grammar.text
    )


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
