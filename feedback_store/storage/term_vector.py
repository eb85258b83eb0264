"""The column type of the terms that a search looks up."""

from __future__ import annotations

from sqlalchemy import Text, func, type_coerce
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.sql.elements import BindParameter, ColumnElement


class TermVector(TSVECTOR):
    """Terms in PostgreSQL; written as they are for SQLite, with spaces between them."""

    def bind_expression(self, bindvalue: BindParameter[str]) -> ColumnElement[str]:
        """Bypass PostgreSQL's parser, which reads other words in a text than `search` does."""
        return func.array_to_tsvector(func.string_to_array(type_coerce(bindvalue, Text), " "))
