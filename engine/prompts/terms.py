"""The terms by which texts are found: content words, and bigrams of scripts without spaces; and the
parameters of BM25 over them.

Knows texts and stop words; knows nothing of what is searched.
"""

from __future__ import annotations

import re
import unicodedata

from engine.yaml_files import shipped_yaml

K1, B = 1.5, 0.75  # Lucene's; bm25s' defaults
# Documents of other words beside the searched ones: without them a word that each of a few has
# would have almost no weight, and the first correction would never be found
OTHER_DOCUMENTS = 100
# Hiragana, ideographs and Hangul, whose words no spaces separate. Runs of Katakana are words
_UNSPACED = (
    r"\u3040-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af々\U00020000-\U0003ffff"
)
_PIECES = re.compile(rf"([{_UNSPACED}]+)|((?:(?![{_UNSPACED}])[^\W_])+)")
_POSSESSIVE = re.compile(r"'s\b")
_STOP = shipped_yaml("engine.prompts", "stop_words.yaml")
_WORDS = frozenset(_STOP["words"].split())
_PHRASES = re.compile("|".join(sorted(_STOP["phrases"].split(), key=len, reverse=True)))
_GRAMMAR = re.compile(r"[\u3040-\u309f]|.[のはがをにでとも]")  # Hiragana that begin or end a bigram


def tokens(text: str) -> list[str]:
    """The content words of a question, in order: all but function words.

    Runs of Chinese, Japanese or Korean become bigrams, a run of one character itself; those
    that begin with Hiragana are grammar in Japanese. An English plural counts as its singular.
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    text = _POSSESSIVE.sub("", text).replace("'", "")
    found: list[str] = []
    for run, word in _PIECES.findall(_PHRASES.sub(" ", text)):
        if run:
            found += _bigrams(run)
        elif word not in _WORDS:
            found.append(_singular(word))
    return found


def _bigrams(run: str) -> list[str]:
    pairs = [run] if len(run) == 1 else [run[at : at + 2] for at in range(len(run) - 1)]
    return [pair for pair in pairs if not _GRAMMAR.match(pair)]


def _singular(word: str) -> str:
    """A word without the s of a plural, roughly: "leaves" does not become "leaf"."""
    plural = word.isascii() and len(word) > 3 and word.endswith("s") and not word.endswith("ss")
    return word[:-1] if plural else word
