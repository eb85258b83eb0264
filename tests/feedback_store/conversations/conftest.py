"""A person's conversations in the store of a test."""

from __future__ import annotations

import pytest

from feedback_store.conversations.conversation_list import Conversations
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore


@pytest.fixture
def conversations(store: FeedbackStore, database: Database) -> Conversations:
    return Conversations(database)
