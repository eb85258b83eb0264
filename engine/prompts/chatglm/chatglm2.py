"""ChatGLM2-6B: `tokenizer.model`, and rounds written as plain text, without role tokens.

Knows the ids and the chat format of the second generation; its tokenizer is the third's as well.
Sources: the published `tokenization_chatglm.py` and its `build_prompt`.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.messages import Message
from engine.prompts.chatglm.pieces import SentencePieces
from engine.prompts.chatglm.renderer import ChatGLMRenderer, rounds

SPECIALS = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")


class ChatGLM2Tokenizer:
    """Text to ids as the published tokenizer does it.

    The special tokens are not in the vocabulary: their ids follow its last one, in the order of
    `names`. So no text can become a special id.
    """

    def __init__(self, pieces: SentencePieces, names: tuple[str, ...] = SPECIALS) -> None:
        self._pieces = pieces
        self.special_ids = {name: len(pieces) + index for index, name in enumerate(names)}
        self.vocab_size = len(pieces) + len(names)
        self.eos_id = pieces.id_of("</s>")
        self.prefix = [self.special_ids["[gMASK]"], self.special_ids["sop"]]
        # shown as nothing: <unk> (which is the pad id too), <s> and </s>
        self._silent = {pieces.id_of(name) for name in ("<unk>", "<s>", "</s>")}

    @property
    def longest_token_bytes(self) -> int:
        """Bytes of the longest piece."""
        return self._pieces.longest_bytes

    def encode_text(self, text: str) -> list[int]:
        """Ids of text alone."""
        return self._pieces.encode(text)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids as the published wrapper makes them: [gMASK] and sop in front."""
        ids = self.encode_text(text)
        return [*self.prefix, *ids] if add_special_tokens else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text as the published wrapper makes it: nothing for special ids."""
        return self._pieces.join([self._piece(i) for i in ids])

    def decode_window(self, ids: Sequence[int]) -> str:
        """Text for a window of a stream: nothing for special and unknown ids."""
        return self._pieces.join_window([self._piece(i) for i in ids])

    def token_bytes(self, token_id: int) -> bytes:
        """See `ChatGLMRenderer.token_bytes`."""
        return self._pieces.bytes_of(token_id) if self._piece(token_id) else b""

    def _piece(self, token_id: int) -> str:
        if token_id in self._silent or not 0 <= token_id < len(self._pieces):
            return ""
        return self._pieces.piece(token_id)


class ChatGLM2Renderer(ChatGLMRenderer):
    """The published chat format: [gMASK] sop, then

        [Round 1]

        问：{question}

        答：{answer}

    with an empty line between rounds, up to the last 答：. It has no system role: see `rounds`.
    Since it is plain text, a person can write what looks like a round.
    """

    tokenizer: ChatGLM2Tokenizer

    def __init__(self, tokenizer: ChatGLM2Tokenizer) -> None:
        super().__init__(tokenizer, tokenizer.eos_id)

    def chat_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the prompt, those of 答： last."""
        return tuple(self.tokenizer.encode(chat_text(messages)))

    def _answer(self, text: str) -> list[int]:
        return self.tokenizer.encode_text(text)


def chat_text(messages: Sequence[Message]) -> str:
    """The conversation as the published chat writes it."""
    answered, question = rounds(messages)
    text = "".join(
        f"[Round {i}]\n\n问：{q}\n\n答：{a}\n\n" for i, (q, a) in enumerate(answered, start=1)
    )
    return f"{text}[Round {len(answered) + 1}]\n\n问：{question}\n\n答："
