"""Measures of an answer's text: pure functions, for English and Chinese.

All of them are heuristics for comparing two models on the same prompts, where their errors are the
same on both sides.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Literal

from engine.prompts.reasoning import split_reasoning

Language = Literal["en", "zh"]
AnswerFormat = Literal["list", "json", "code", "thought"]

REPEATED_WORDS = 4
HAN_SHARE = 0.3  # Chinese text about code or brands holds many Latin letters
REFUSAL_CHARS = 160  # a refusal comes first; "sorry" deep inside a story is none

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+")
_HAN = re.compile(r"[\u3400-\u9fff]")
_LIST_ITEM = re.compile(r"(?m)^[ \t]*(?:[-*•+]|\d{1,2}[.)、])[ \t]*\S")
_FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am)(?: very| so)? sorry,?(?: but)? (?:i|we)\b"
    r"|i (?:can't|cannot|can not|won't|will not|must decline|am unable to|'m unable to)"
    r"|i(?:'m| am) (?:unable|not able|not allowed) to"
    r"|as an ai\b)"
    r"|(?:抱歉|对不起|很遗憾).{0,12}(?:不能|无法|不可以|没办法)"
    r"|我(?:不能|无法|没办法|不可以)(?:回答|提供|帮|协助|满足|完成|讨论|做)"
    r"|作为(?:一个|一名)?(?:人工智能|AI)",
    re.IGNORECASE,
)


def is_empty(text: str) -> bool:
    """Return whether nothing in it is a letter or a digit of any script."""
    return not any(unicodedata.category(char)[0] in "LN" for char in text)


def repetition(text: str, n: int = REPEATED_WORDS) -> float:
    """Share of n-grams that were there before: seq-rep-n (Welleck et al. 2020).

    Of words; each Chinese character is one. 0 for a text shorter than n + 1 words.
    """
    words = _WORD.findall(text.casefold())
    grams = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def refuses(text: str) -> bool:
    """Return whether it begins as refusals do, by a short list of phrases: others are missed."""
    return _REFUSAL.search(text[:REFUSAL_CHARS].replace("’", "'")) is not None


def language(text: str) -> Language | None:
    """Chinese or English by the share of Han characters among letters; None without letters.

    Any other script than Han counts as English: only the two are told apart. Code in fences is
    left out, since it is in neither.
    """
    text = _FENCED.sub("", text)
    han = len(_HAN.findall(text))
    letters = sum(char.isalpha() for char in text)
    if not letters:
        return None
    return "zh" if han / letters >= HAN_SHARE else "en"


def keeps_format(text: str, asked: AnswerFormat) -> bool:
    """Return whether a text, after any think block, has the form that its prompt asked for."""
    return _FORMATS[asked](text if asked == "thought" else split_reasoning(text).answer)


def _is_list(text: str) -> bool:
    return len(_LIST_ITEM.findall(text)) >= 2


def _is_json(text: str) -> bool:
    """An object or an array, alone or in one code fence."""
    fenced = _FENCED.search(text)
    try:
        return isinstance(json.loads(fenced[1] if fenced else text), dict | list)
    except (ValueError, RecursionError):
        return False


def _is_code(text: str) -> bool:
    """Return whether there is a fence, and every one is closed."""
    return _FENCED.search(text) is not None and text.count("```") % 2 == 0


def _has_thought(text: str) -> bool:
    """A thought and an answer that can be told apart."""
    reasoned = split_reasoning(text, answer_line=True)
    return bool(reasoned.thought and reasoned.answer)


_FORMATS: Mapping[AnswerFormat, Callable[[str], bool]] = {
    "list": _is_list,
    "json": _is_json,
    "code": _is_code,
    "thought": _has_thought,
}
