"""ChatGLM3-6B: the tokenizer of ChatGLM2 with role tokens, and messages opened by them.

Knows the ids and the chat format of the third generation.
Sources: the published `tokenization_chatglm.py`, its `build_chat_input` and `build_single_message`,
the `chat` method of the published model for what ends an answer, and `PROMPT_en.md` for tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from engine.messages import Message, is_blank
from engine.prompts.calls.keywords import CHATGLM3
from engine.prompts.calls.messages import template_messages
from engine.prompts.chatglm.chatglm2 import SPECIALS, ChatGLM2Tokenizer
from engine.prompts.chatglm.pieces import SentencePieces
from engine.prompts.chatglm.renderer import ChatGLMRenderer

# The published words of the system message that offers tools
OFFER = "Answer the following questions as best as you can. You have access to the following tools:"
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
    A call of a function opens with its name instead, and <|observation|> ends it.
    """

    tokenizer: ChatGLM3Tokenizer
    call_format = CHATGLM3

    def __init__(self, tokenizer: ChatGLM3Tokenizer) -> None:
        ends = [tokenizer.special_ids[name] for name in ("<|user|>", "<|observation|>")]
        super().__init__(tokenizer, tokenizer.eos_id, ends)

    def prompt(
        self, messages: Sequence[Message], *, thinking: bool | None = None
    ) -> tuple[int, ...]:
        """Ids of the prompt, <|assistant|> last; tools as the published code offers them."""
        return self.chat_ids([_with_offer(each) if each.tools else each for each in messages])

    def chat_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the prompt of messages without an offer of tools."""
        rows = template_messages(messages, [], CHATGLM3)
        said = (self.tokenizer.message(r["role"], r["content"], r["metadata"]) for r in rows)
        ids = [i for each in said for i in each]
        return (*self.tokenizer.prefix, *ids, self.tokenizer.special_ids["<|assistant|>"])

    def completion(self, text: str, *, complete: bool = True, opening: str = "") -> tuple[int, ...]:
        """See `ChatRenderer`. A text is taken for a call where it is one, and nothing else."""
        if not _is_call(text):
            return super().completion(text, complete=complete)
        name, _, content = text.partition("\n")
        ids = self.tokenizer.message("assistant", content, name)[1:]
        return (*ids, *([self.tokenizer.special_ids["<|observation|>"]] if complete else []))

    def _answer(self, text: str) -> list[int]:
        return self.tokenizer.message("assistant", text)[1:]


def _is_call(text: str) -> bool:
    try:
        return CHATGLM3.write(CHATGLM3.read(text).calls) == text != ""
    except ValueError:  # the arguments are cut off
        return False


def _with_offer(message: Message) -> Message:
    """A system message whose tools stand in its content."""
    functions = [tool.as_dict()["function"] for tool in message.tools]
    offer = f"{OFFER}\n{json.dumps(functions, ensure_ascii=False, indent=4)}"
    content = offer if is_blank(message.content) else f"{message.content}\n{offer}"
    return Message("system", content)
