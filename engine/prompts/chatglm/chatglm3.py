"""ChatGLM3-6B: the tokenizer of ChatGLM2 with role tokens, and messages opened by them.

Knows the ids and the chat format of the third generation. Tools are offered as text.
Sources: the published `tokenization_chatglm.py`, its `build_chat_input` and `build_single_message`,
and the `chat` method of the published model for what ends an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.messages import Message
from engine.prompts.chatglm.chatglm2 import SPECIALS, ChatGLM2Tokenizer
from engine.prompts.chatglm.pieces import SentencePieces
from engine.prompts.chatglm.renderer import ChatGLMRenderer

ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")


class ChatGLM3Tokenizer(ChatGLM2Tokenizer):
    """ChatGLM2's tokenizer with four role tokens after its special ones."""

    def __init__(self, pieces: SentencePieces) -> None:
        super().__init__(pieces, SPECIALS + ROLE_TOKENS)
        self._names = {token_id: name for name, token_id in self.special_ids.items()}

    def message(self, role: str, content: str, metadata: str = "") -> list[int]:
        """Ids of one message: the role, a line for the name of a tool, the content."""
        head = [self.special_ids[f"<|{role}|>"], *self.encode_text(f"{metadata}\n")]
        return head + self.encode_text(content)

    def encode_roles(self, text: str) -> list[int]:
        """Ids as the published wrapper makes them with `encode_special_tokens`: role tokens in the
        text become special ids. Never for text from people."""
        ids: list[int] = []
        for part in re.split("(" + "|".join(map(re.escape, ROLE_TOKENS)) + ")", text):
            ids += [self.special_ids[part]] if part in ROLE_TOKENS else self.encode_text(part)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text as the published wrapper makes it: special ids appear by name."""
        return self._pieces.join([self._names.get(i) or self._piece(i) for i in ids])


class ChatGLM3Renderer(ChatGLMRenderer):
    """The published chat format: [gMASK] sop, then for each message its role token, a line that
    is empty where no tool is meant, and the content, each tokenized on its own; then <|assistant|>.

    An answer of the model thus opens with an empty line. It ends with </s>, as published
    fine-tuning ends it; where the model goes on with <|user|> or <|observation|>, that ends it too.
    """

    def __init__(self, tokenizer: ChatGLM3Tokenizer) -> None:
        ends = [tokenizer.special_ids[name] for name in ("<|user|>", "<|observation|>")]
        super().__init__(
            tokenizer.eos_id,
            frozenset([tokenizer.eos_id, *ends]),
            tokenizer.vocab_size,
            tokenizer.longest_token_bytes,
        )
        self.tokenizer = tokenizer

    def chat_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the prompt, <|assistant|> last."""
        ids = [i for m in messages for i in self.tokenizer.message(m.role, m.content)]
        return (*self.tokenizer.prefix, *ids, self.tokenizer.special_ids["<|assistant|>"])

    def raw(self, text: str) -> tuple[int, ...]:
        """See `ChatGLMRenderer`."""
        return tuple(self.tokenizer.encode(text))

    def token_bytes(self, token_id: int) -> bytes:
        """See `ChatGLMRenderer`."""
        return self.tokenizer.token_bytes(token_id)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer's ids, its empty first line included; see `ChatGLMRenderer.decode`."""
        return self.tokenizer.decode_window(ids)

    def _answer(self, text: str) -> list[int]:
        return self.tokenizer.message("assistant", text)[1:]
