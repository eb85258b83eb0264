"""ChatGLM-6B: `ice_text.model`, and rounds written as plain text, without role tokens.

Knows the ids and the chat format of the first generation; knows nothing of masks and positions.
Sources: the published `tokenization_chatglm.py` and the `chat` method of the published model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.messages import Message
from engine.prompts.chatglm.pieces import SentencePieces
from engine.prompts.chatglm.renderer import ChatGLMRenderer, rounds

LONGEST_BLANK = 80
BLANK_MARKS = {f"<|blank_{count}|>": " " * count for count in range(2, LONGEST_BLANK + 1)}
WHITESPACE = {"<n>": "\n", "<|tab|>": "\t"} | BLANK_MARKS
BLANK_RUN = re.compile(f" {{2,{LONGEST_BLANK}}}")
# The named tokens that the published wrapper recognizes in text; [gMASK] is not among them
NAMED = ("<sop>", "<eop>", "<unk>", "<pad>", "[MASK]")
# What `clean_up_tokenization_spaces` of transformers replaces, in its order.
TIDIED = {
    " .": ".",
    " ?": "?",
    " !": "!",
    " ,": ",",
    " ' ": "'",
    " n't": "n't",
    " 'm": "'m",
    " 's": "'s",
    " 've": "'ve",
    " 're": "'re",
}
FULL_WIDTH = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}
BY_CHINESE = re.compile(r"(?<=[\u4e00-\u9fff])[,!:;?]|[,!:;?](?=[\u4e00-\u9fff])")


class ChatGLM1Tokenizer:
    """Text to ids as the published tokenizer does it.

    Ids are those of the vocabulary plus `num_image_tokens`: 0 in the published files, 20000 in
    the layout before April 2023. Raises `ModelUnavailable` where a piece is missing.
    """

    def __init__(self, pieces: SentencePieces, num_image_tokens: int = 0) -> None:
        self._pieces = pieces
        self._offset = num_image_tokens
        self.vocab_size = len(pieces) + num_image_tokens
        self.bos_id, self.eos_id, self.pad_id, self.gmask_id = (
            pieces.id_of(name) + num_image_tokens for name in ("<sop>", "<eop>", "<pad>", "[gMASK]")
        )
        self._named = {name: pieces.id_of(name) + num_image_tokens for name in NAMED}
        for mark in WHITESPACE:
            pieces.id_of(mark)

    @property
    def longest_token_bytes(self) -> int:
        """Bytes of the longest token: a long word, or a run of blanks."""
        return max(self._pieces.longest_bytes, LONGEST_BLANK)

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text. Names of special tokens are read as characters, the vocabulary's own
        marks for white space (`<n>`, `<|tab|>`, `<|blank_2|>`) as white space."""
        marked = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        marked = BLANK_RUN.sub(lambda run: f"<|blank_{len(run[0])}|>", marked)
        return [token_id + self._offset for token_id in self._pieces.encode(marked)]

    def closed(self, ids: Sequence[int]) -> list[int]:
        """Ids of a text that the model shall continue: with [gMASK] and <sop> at the end."""
        return [*ids, self.gmask_id, self.bos_id]

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids like those of the published wrapper: `NAMED` tokens in the text become special ids
        and lose the blanks beside them. Not to be used for text from people."""
        parts = re.split("(" + "|".join(map(re.escape, NAMED)) + ")", text)
        ids: list[int] = []
        for index, part in enumerate(parts):
            if index % 2:
                ids.append(self._named[part])
                continue
            begun = part.lstrip() if index else part
            ids += self.encode_text(begun.rstrip() if index < len(parts) - 1 else begun)
        return self.closed(ids) if add_special_tokens else ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text like that of the published wrapper, which removes spaces before punctuation."""
        dropped = set(self._named.values()) if skip_special_tokens else {self.pad_id}
        text = self._pieces.join([self._piece(i) for i in ids if i not in dropped])
        for mark, blank in (WHITESPACE | TIDIED).items():
            text = text.replace(mark, blank)
        return text

    def decode_window(self, ids: Sequence[int]) -> str:
        """Text for a window of a stream: spaces unchanged, nothing for special and unknown ids."""
        return self._pieces.join_window([self._plain_piece(i) for i in ids])

    def token_bytes(self, token_id: int) -> bytes:
        """See `ChatGLMRenderer.token_bytes`."""
        text = self._plain_piece(token_id)
        if text in WHITESPACE.values():
            return text.encode()
        return self._pieces.bytes_of(token_id - self._offset) if text else b""

    def _piece(self, token_id: int) -> str:
        inner = token_id - self._offset
        return self._pieces.piece(inner) if inner >= 0 else f"<image_{token_id}>"

    def _plain_piece(self, token_id: int) -> str:
        known = self._offset <= token_id < self.vocab_size
        if not known or token_id in self._named.values():
            return ""
        piece = self._piece(token_id)
        return WHITESPACE.get(piece, piece)


class ChatGLM1Renderer(ChatGLMRenderer):
    """The published chat format: the bare question, or with earlier rounds

        [Round 0]
        问：{question}
        答：{answer}
        [Round 1]
        问：{question}
        答：

    and then [gMASK] <sop>. It has no system role: see `rounds`. Since it is plain text, a person
    can write what looks like a round; special ids come from this class alone.
    """

    tokenizer: ChatGLM1Tokenizer

    def __init__(self, tokenizer: ChatGLM1Tokenizer) -> None:
        super().__init__(tokenizer, tokenizer.eos_id)

    def chat_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the prompt, <sop> last."""
        return tuple(self.tokenizer.closed(self.tokenizer.encode_text(chat_text(messages))))

    def clean_answer(self, text: str) -> str:
        """A finished answer as the published chat shows it: punctuation beside Chinese characters
        in full width."""
        return BY_CHINESE.sub(lambda mark: FULL_WIDTH[mark[0]], super().clean_answer(text))

    def _answer(self, text: str) -> list[int]:
        return self.tokenizer.encode_text(text)


def chat_text(messages: Sequence[Message]) -> str:
    """The conversation as the published chat writes it."""
    answered, question = rounds(messages)
    if not answered:
        return question
    text = "".join(f"[Round {i}]\n问：{q}\n答：{a}\n" for i, (q, a) in enumerate(answered))
    return f"{text}[Round {len(answered)}]\n问：{question}\n答："
