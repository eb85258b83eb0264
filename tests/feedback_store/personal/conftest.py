"""Examples from feedback over the store of a test."""

from __future__ import annotations

import pytest

from feedback_store.curation.decisions import Curation
from feedback_store.personal.feedback_examples import FeedbackExamples
from feedback_store.personal.own_examples import OwnExamples
from feedback_store.personal.shared_examples import SharedExamples
from feedback_store.storage.database import Database


@pytest.fixture
def own(database: Database, curation: Curation) -> OwnExamples:
    return OwnExamples(database, curation)


@pytest.fixture
def shared(database: Database, curation: Curation) -> SharedExamples:
    return SharedExamples(database, curation)


@pytest.fixture
def examples(database: Database, own: OwnExamples, shared: SharedExamples) -> FeedbackExamples:
    return FeedbackExamples(database, own, shared)
