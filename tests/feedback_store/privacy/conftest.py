"""People in the store of a test."""

from __future__ import annotations

import pytest

from feedback_store.storage.database import Database
from tests.feedback_store.people import People


@pytest.fixture
def people(database: Database) -> People:
    return People(database)
