"""Alembic migrations of the release tables."""
