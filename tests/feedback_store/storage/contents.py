"""The rows of a database, and the evidence in them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from feedback_store.records import PromptEvidence
from feedback_store.storage import tables
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader


def everything(database: Database) -> dict[str, list[Any]]:
    """Every row of every table."""
    with database.read() as connection:
        return {
            table.name: sorted(map(str, connection.execute(select(table))))
            for table in tables.feedback_metadata.sorted_tables
        }


def only_evidence(database: Database) -> PromptEvidence:
    (evidence,) = EvidenceReader(database).all()
    return evidence
