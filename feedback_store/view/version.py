"""The version of the rules: another one makes every row of the view stale."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path

from engine.storage import digest_bytes, digest_json
from feedback_store import examples, records
from feedback_store.examples.rules import Rules
from feedback_store.storage import evidence, prompts, statements
from feedback_store.view import derivation


def rules_version(rules: Rules) -> str:
    """A digest of all that decides about examples beside the evidence and the decisions.

    The rules' values and the source of the modules that apply them, so that nobody has to remember
    to raise a number. The users who refuse are left out: the view follows them one by one.
    """
    names = [field.name for field in fields(rules) if field.name != "refusing_users"]
    values = {name: getattr(rules, name) for name in names}
    return digest_json([values, source_digest(rule_sources())])


@cache
def rule_sources() -> tuple[Path, ...]:
    """The files that say how evidence becomes rows."""
    modules = (records, evidence, prompts, statements, derivation)
    room = Path(str(examples.__file__)).parent
    return (*sorted(room.glob("*.py")), *(Path(str(module.__file__)) for module in modules))


@cache
def source_digest(files: tuple[Path, ...]) -> str:
    """A digest of the contents of files; they are read once."""
    return digest_json([[file.name, digest_bytes(file.read_bytes())] for file in files])
