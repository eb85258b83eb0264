"""Log-probabilities in the format of OpenAI's legacy text completions.

Knows tokens and the text that they are in; knows nothing of responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.openai_answers import MIN_LOGPROB, REPLACEMENT
from engine.request import PromptRead, TokenLogprob


class LegacyLogprobs:
    """The log-probabilities of one choice, whose text grows: `text_offset` counts all of it."""

    def __init__(self) -> None:
        self._chars = 0  # of the text before

    def of_prompt(self, prompt: PromptRead) -> dict[str, list[Any]]:
        """Return those of a prompt; its first token has none."""
        texts = [prompt.first_token, *(token.text for token in prompt.logprobs)]
        document = self._document(texts, prompt.text, prompt.logprobs)
        return {
            **document,
            "token_logprobs": [None, *document["token_logprobs"]],
            "top_logprobs": [None, *document["top_logprobs"]],
        }

    def of_text(self, tokens: Sequence[TokenLogprob], text: str) -> dict[str, list[Any]]:
        """Return those of the next tokens, whose text is `text`."""
        return self._document([token.text for token in tokens], text, tokens)

    def _document(
        self, texts: Sequence[str], text: str, tokens: Sequence[TokenLogprob]
    ) -> dict[str, list[Any]]:
        offsets = [self._chars + offset for offset in token_offsets(texts, text)]
        self._chars += len(text)
        return {
            "tokens": list(texts),
            "token_logprobs": [max(token.logprob, MIN_LOGPROB) for token in tokens],
            "top_logprobs": [_top(token) for token in tokens],
            "text_offset": offsets,
        }


def token_offsets(tokens: Sequence[str], text: str) -> list[int]:
    """The offset of each token in the text, in characters.

    A token decoded alone may lack the blank before it, be a part of a character, or not be in the
    text at all: the place is then that of the next character that is not taken yet.
    """
    offsets: list[int] = []
    taken = 0
    parts = 0  # tokens of which no whole character was seen since
    for token in tokens:
        is_whole = bool(token) and REPLACEMENT not in token
        # Unfinished tokens stand for at most a character each, and a blank may be missing
        found = text.find(token, taken, taken + parts + 1 + len(token)) if is_whole else -1
        offsets.append(max(found, taken))
        if found >= 0:
            taken, parts = found + len(token), 0
        else:
            parts += bool(token)
    return [min(offset, len(text)) for offset in offsets]


def _top(token: TokenLogprob) -> dict[str, float]:
    """The likeliest tokens by their texts, and the token itself, as in OpenAI's API.

    Of tokens with the same text, such as parts of characters, the likeliest is named.
    """
    found: dict[str, float] = {}
    for _, text, logprob in (*token.top, (token.token_id, token.text, token.logprob)):
        found.setdefault(text, max(logprob, MIN_LOGPROB))
    return found
