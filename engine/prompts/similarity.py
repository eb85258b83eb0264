"""The search of examples similar to a question: BM25 over words, or bigrams of unspaced scripts.

Similarity is computed from words alone, without a model, which takes about a millisecond. Knows
texts; knows nothing of their owners.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import bm25s
from langchain_core.example_selectors import BaseExampleSelector

from engine.prompts.examples import SHOWN, Example
from engine.prompts.terms import K1, OTHER_DOCUMENTS, B, tokens

# The part of a question's weight that an example must share. In the pairs of
# tests/engine/prompts/test_similarity.py, unrelated questions have less than 0.2, similar ones more
# than 0.3
MIN_SCORE = 0.25
PADDING = " "  # no token holds a space

logging.getLogger(bm25s.__name__).setLevel(logging.WARNING)  # it logs each index that it builds


class SimilarExamples(BaseExampleSelector):
    """Selects the examples whose question shares the most with the one asked.

    A score is BM25's as a share of what the question itself would get: 1 for the same question, 0
    for nothing in common, whatever the number of examples. Not for several threads that add.
    """

    def __init__(
        self,
        examples: Iterable[Mapping[str, str]] = (),
        *,
        k: int = SHOWN,
        min_score: float = MIN_SCORE,
    ) -> None:
        self.examples = [dict(example) for example in examples]
        self.k = k
        self.min_score = min_score
        self._build()

    def add_example(self, example: dict[str, str]) -> None:
        """Append an example."""
        self.examples.append(dict(example))
        self._build()

    def select_examples(self, input_variables: Mapping[str, str]) -> list[dict[str, Any]]:
        """The `k` best for `input_variables["question"]`, best first; equals in their order."""
        return [self.examples[at] for at in self.ranked(input_variables["question"])[: self.k]]

    def ranked(self, question: str) -> list[int]:
        """Indices of all examples above the threshold, best first; equals in their order."""
        scores = self.scores(question)
        good = [at for at, score in enumerate(scores) if score >= self.min_score and score > 0]
        return sorted(good, key=lambda at: (-scores[at], at))

    def scores(self, question: str) -> list[float]:
        """Similarity of each example to the question, from 0 to about 1."""
        asked = list(dict.fromkeys(tokens(question)))
        if not asked or not self.examples:
            return [0.0] * len(self.examples)
        found = self._index.get_scores(asked)[: len(self.examples)]
        own = self._own_score(asked)
        # Rounded so that equal examples are equal: 32-bit sums depend on their order
        return [round(float(score) / own, 4) for score in found]

    def _build(self) -> None:
        documents = [list(dict.fromkeys(tokens(example["question"]))) for example in self.examples]
        lengths = [len(document) for document in documents]
        length = max(1, round(sum(lengths) / max(1, len(lengths))))
        padding = [[PADDING] * length] * OTHER_DOCUMENTS
        self._frequencies = Counter(token for document in documents for token in document)
        self._count = len(documents) + OTHER_DOCUMENTS
        self._mean_length = (sum(lengths) + OTHER_DOCUMENTS * length) / self._count
        self._index = bm25s.BM25(k1=K1, b=B, method="lucene")
        self._index.index([*documents, *padding], show_progress=False)

    def _own_score(self, asked: Sequence[str]) -> float:
        """The score of an example with this very question."""
        weight = 1 / (1 + K1 * (1 - B + B * len(asked) / self._mean_length))
        return weight * sum(self._idf(token) for token in asked)

    def _idf(self, token: str) -> float:
        """Inverse document frequency by Lucene's formula, also of a token in no example."""
        with_it = self._frequencies[token]
        return math.log(1 + (self._count - with_it + 0.5) / (with_it + 0.5))


def most_similar(
    examples: tuple[Example, ...], question: str, count: int = SHOWN
) -> tuple[Example, ...]:
    """Select `count` of the operator's examples: the most similar, then the first of the file.

    They are returned in the order of the file, so that prompts with the same examples begin alike.
    """
    if len(examples) <= count:
        return examples
    chosen = _selector_of(tuple(e.question for e in examples)).ranked(question)[:count]
    chosen += [at for at in range(len(examples)) if at not in chosen][: count - len(chosen)]
    return tuple(examples[at] for at in sorted(chosen))


@lru_cache(maxsize=4)  # the file is read with each question, and seldom changes
def _selector_of(questions: tuple[str, ...]) -> SimilarExamples:
    return SimilarExamples({"question": question} for question in questions)
