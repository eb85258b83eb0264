"""BM25 over the passages of several documents.

`bm25s`, which selects worked examples, scores a whole corpus when it is built and cannot take one
more document. Here each document keeps counts of its own, and the formula is applied when a
question comes, since only then the other documents of the collection are known. Knows numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.prompts.terms import K1, OTHER_DOCUMENTS, B
from feedback_store.documents.term_index import TermIndex

PassageScores = npt.NDArray[np.float64]


def bm25(indices: Sequence[TermIndex], asked: Sequence[str]) -> tuple[PassageScores, PassageScores]:
    """Score every passage of the documents, in their order, against the terms of a question.

    Returns BM25 by Lucene's formula, and the share of the question's weight (inverse document
    frequency) that a passage has at all, from 0 to 1. Some passages of other words are assumed
    beside the given ones: in a collection of one page, each of its words would have no weight.
    """
    lengths = np.concatenate([index.lengths for index in indices]).astype(np.float64)
    passages = len(lengths) + OTHER_DOCUMENTS
    begins = np.cumsum([0, *(len(index.lengths) for index in indices)])
    norms = K1 * (1 - B + B * lengths / max(lengths.mean(), 1.0))
    scores, shares = np.zeros(len(lengths)), np.zeros(len(lengths))
    total = 0.0
    for term in dict.fromkeys(asked):
        places = [(n, where) for n, i in enumerate(indices) if (where := i.occurrences(term))]
        found = sum(where.stop - where.start for _, where in places)
        weight = float(np.log(1 + (passages - found + 0.5) / (found + 0.5)))
        total += weight
        for number, where in places:
            rows = indices[number].rows[where] + begins[number]
            counts = indices[number].counts[where]
            scores[rows] += weight * counts / (counts + norms[rows])
            shares[rows] += weight
    return scores, shares / (total or 1.0)
