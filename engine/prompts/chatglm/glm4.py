"""GLM-4-9b-chat in its remote-code layout: a list of ranks, and messages opened by role tokens.

Knows the ids and the chat format of that layout; the layout which transformers reads by itself
(`tokenizer.json`) is not this module's.
Sources: the published `tokenization_chatglm.py` and the chat template of `tokenizer_config.json`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tiktoken

from engine.errors import ModelUnavailable
from engine.messages import Message, tools_of
from engine.prompts.calls.formats import GLM4
from engine.prompts.calls.messages import template_messages, without_tools
from engine.prompts.chatglm.renderer import ChatGLMRenderer
from engine.tools import Tool

# How text is cut before pairs of bytes are merged.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The published words of the system message that offers tools
ASSISTANT = (
    "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
)
ARGUMENTS_ARE_JSON = "在调用上述函数时，请使用 Json 格式表示调用的参数。"
NEEDED_SPECIALS = (
    "[gMASK]",
    "<sop>",
    "<|endoftext|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
)


class GLM4Tokenizer:
    """Text to ids as the published tokenizer does it.

    `ranks` maps each token's bytes to its id, 0 up to the vocabulary's size; `special_ids` are
    those of tokenizer_config.json. Raises `ModelUnavailable` where a special token is missing.
    """

    def __init__(self, ranks: Mapping[bytes, int], special_ids: Mapping[str, int]) -> None:
        missing = [name for name in NEEDED_SPECIALS if name not in special_ids]
        if missing:
            raise ModelUnavailable(
                f"tokenizer_config.json lists no {', '.join(missing)} in added_tokens_decoder"
            )
        self._encoding = tiktoken.Encoding(
            "glm4", pat_str=SPLIT, mergeable_ranks=dict(ranks), special_tokens=dict(special_ids)
        )
        self._rank_count = len(ranks)
        self.longest_token_bytes = max(map(len, ranks))
        self.special_ids = dict(special_ids)
        self._names = {token_id: name for name, token_id in special_ids.items()}
        self.vocab_size = max(self._rank_count, *(i + 1 for i in self._names))
        self.prefix = [special_ids["[gMASK]"], special_ids["<sop>"]]

    def encode_text(self, text: str) -> list[int]:
        """Ids of text alone. The name of a special token is read as characters."""
        return self._encoding.encode_ordinary(text)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids as the published wrapper makes them: [gMASK] <sop> in front, and special tokens in
        the text become special ids. Never for text from people."""
        ids = self._encoding.encode(text, allowed_special="all")
        return [*self.prefix, *ids] if add_special_tokens else ids

    def message(self, role: str, content: str, metadata: str = "") -> list[int]:
        """Ids of one message: the role, then a line for the name of a tool with the content."""
        return [self.special_ids[f"<|{role}|>"], *self.encode_text(f"{metadata}\n{content}")]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text as the published wrapper makes it: special ids by name, set apart by blanks."""
        stretches: list[str] = []
        plain: list[int] = []
        for token_id in ids:
            if token_id not in self._names:
                plain.append(token_id)
            elif not skip_special_tokens:
                stretches += [self.decode_window(plain), self._names[token_id]]
                plain = []
        return " ".join(filter(None, [*stretches, self.decode_window(plain)]))

    def token_bytes(self, token_id: int) -> bytes:
        """See `ChatGLMRenderer.token_bytes`."""
        known = 0 <= token_id < self._rank_count
        return self._encoding.decode_single_token_bytes(token_id) if known else b""

    def decode_window(self, ids: Sequence[int]) -> str:
        """Text for a window of a stream: nothing for special and unknown ids."""
        known = [i for i in ids if 0 <= i < self._rank_count]
        return self._encoding.decode_bytes(known).decode("utf-8", errors="replace")


class GLM4Renderer(ChatGLMRenderer):
    """The published chat format: [gMASK] <sop>, then for each message that is not empty its role
    token, a line that is empty where no tool is meant, and the content; then <|assistant|>.

    An answer of the model thus opens with an empty line. It ends with <|user|>, which opens the
    next message: a prompt with its completion is the beginning of the next prompt. A call of a
    function opens with its name instead, and its arguments are the content.
    """

    tokenizer: GLM4Tokenizer
    call_format = GLM4

    def __init__(self, tokenizer: GLM4Tokenizer) -> None:
        ids = tokenizer.special_ids
        ends = [ids[name] for name in ("<|endoftext|>", "<|observation|>")]
        super().__init__(tokenizer, ids["<|user|>"], ends)

    def prompt(
        self, messages: Sequence[Message], *, thinking: bool | None = None
    ) -> tuple[int, ...]:
        """Ids of the prompt, <|assistant|> last; tools as the published template offers them."""
        tools = tools_of(messages)
        offer = [Message("system", _offer(tools))] if tools else []
        return self.chat_ids([*offer, *without_tools(messages)])

    def chat_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the prompt of messages without an offer of tools."""
        message_ids, said = self.tokenizer.message, template_messages(messages, [], GLM4)
        rows = ((row["role"], row["content"], row["metadata"]) for row in said if row["content"])
        ids = [i for row in rows for i in message_ids(*row)]
        return (*self.tokenizer.prefix, *ids, self.tokenizer.special_ids["<|assistant|>"])

    def completion(self, text: str, *, complete: bool = True, opening: str = "") -> tuple[int, ...]:
        """See `ChatRenderer`. A call begins with the function's name, and <|observation|> ends it.

        A text is taken for a call where it has the form of one, and nothing else, from its
        beginning to its end.
        """
        calls = GLM4.read(text).calls
        if not calls or GLM4.write(calls) != text:
            return super().completion(text, complete=complete)
        ids = self.tokenizer.message("assistant", calls[0].arguments, calls[0].name)[1:]
        return (*ids, *([self.tokenizer.special_ids["<|observation|>"]] if complete else []))

    def _answer(self, text: str) -> list[int]:
        return self.tokenizer.message("assistant", text)[1:]


def _offer(tools: Sequence[Tool]) -> str:
    functions = [tool.as_dict()["function"] for tool in tools]
    described = (
        f"\n\n## {function['name']}\n\n{json.dumps(function, ensure_ascii=False, indent=4)}"
        f"\n{ARGUMENTS_ARE_JSON}"
        for function in functions
    )
    return ASSISTANT + "".join(described)


def read_ranks(file: Path) -> dict[bytes, int]:
    """The list of ranks in a file: per line a token in base64, a blank, its rank.

    Raises `ModelUnavailable` if a line is something else, a rank is missing or given twice, or one
    of the 256 single bytes has none.
    """
    ranks = {}
    try:
        for line in file.read_bytes().splitlines():
            if line:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (OSError, ValueError, binascii.Error) as error:
        raise ModelUnavailable(f"{file} is no list of token ranks: {error}") from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ModelUnavailable(f"{file} does not give each rank once")
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise ModelUnavailable(f"{file} lacks some of the 256 single bytes")
    return ranks
