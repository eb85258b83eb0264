"""Datasets for trainers, made of tokenized pairs as a run makes them."""

from __future__ import annotations

from datasets import Dataset

from tuning.methods.base import Method
from tuning.rows import TokenizedPairs, TrainingData


def dataset_of(method: Method, pairs: TokenizedPairs) -> Dataset:
    """The rows that a method trains on, where a snapshot has pairs alone."""
    return Dataset.from_list(list(method.rows(TrainingData(pairs))))
