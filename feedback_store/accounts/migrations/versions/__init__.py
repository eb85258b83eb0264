"""Alembic migrations of the feedback tables."""
