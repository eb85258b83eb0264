"""The name of a release on a page."""

from __future__ import annotations

from app.texts import say
from engine.storage import short_id


def release_name(bundle: str | None, language: str) -> str:
    """The beginning of a release's id; the base model (None) by its name in a language."""
    return say("console.overview.base", language) if bundle is None else short_id(bundle)
