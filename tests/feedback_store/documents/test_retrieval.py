"""The scores of passages, against a peer and by hand, and what is found by them."""

from __future__ import annotations

from pathlib import Path

import bm25s
import numpy as np
import pytest

from engine.prompts.similarity import PADDING
from engine.prompts.terms import OTHER_DOCUMENTS, tokens
from feedback_store.documents.bm25 import bm25
from feedback_store.documents.retrieval import fuse_rankings
from feedback_store.documents.term_index import TermIndex, character_grams

FIRST = ["the red pump pumps water", "a blue valve leaks", "oil and water do not mix, oil floats"]
SECOND = ["每年有二十天年假", "the red roof is of slate and the red door of oak"]


def test_scores_over_several_documents_are_those_of_bm25s_over_one_corpus() -> None:
    documents = [[tokens(text) for text in texts] for texts in (FIRST, SECOND)]
    corpus = [passage for document in documents for passage in document]
    peer = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    # The other passages have the mean length, which they leave as it is
    assert sum(map(len, corpus)) % len(corpus) == 0
    padding = [[PADDING] * (sum(map(len, corpus)) // len(corpus))] * OTHER_DOCUMENTS
    peer.index([*corpus, *padding], show_progress=False)
    for question in ("red water oil", "年假有几天", "valve", "slate oak red"):
        asked = list(dict.fromkeys(tokens(question)))
        scores, _ = bm25([TermIndex.of(each) for each in documents], asked)
        expected = peer.get_scores([t for t in asked if t in peer.vocab_dict])[: len(corpus)]
        assert scores == pytest.approx(expected, rel=1e-4)


def test_a_share_is_the_part_of_the_questions_weight_that_a_passage_has() -> None:
    index = TermIndex.of([["pump", "red"], ["pump"]])
    _, shares = bm25([index], ["pump", "red", "green"])
    weights = {n: np.log(1 + (102 - n + 0.5) / (n + 0.5)) for n in (0, 1, 2)}  # by passages with it
    total = sum(weights.values())
    assert shares == pytest.approx([(weights[2] + weights[1]) / total, weights[2] / total])


def test_an_index_is_the_same_after_it_was_stored(tmp_path: Path) -> None:
    file = tmp_path / "index.npz"
    index = TermIndex.of(map(tokens, [*FIRST, *SECOND]))
    index.save(file)
    loaded = TermIndex.load(file)
    assert loaded.terms == index.terms
    for name in ("starts", "rows", "counts", "lengths"):
        assert np.array_equal(getattr(loaded, name), getattr(index, name))


def test_character_grams_find_inflections_and_single_characters() -> None:
    assert list(character_grams("Index")) == ["_ind", "inde", "ndex", "dex_"]
    common = set(character_grams("indexed")) & set(character_grams("indexing"))
    assert common == {"_ind", "inde", "ndex"}
    assert list(character_grams("oil")) == ["_oil", "oil_"]
    assert set(character_grams("年假")) == {"年", "假"}


def test_rankings_are_fused_by_reciprocal_rank() -> None:
    fused = fuse_rankings([np.array([2, 0]), np.array([0, 1])], passages=4)
    assert fused == pytest.approx([1 / 62 + 1 / 61, 1 / 62, 1 / 61, 0])
