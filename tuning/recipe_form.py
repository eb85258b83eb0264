"""The recipe as a flat list of fields, for a form and for the command line.

The fields are read off the recipe's own types, and what each does off its annotation; so a new
value of a recipe is in the form at once. Knows no page.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from engine.errors import InvalidInput
from tuning.recipe import Recipe, change_recipe
from tuning.recipe_values import type_parts

FieldKind = Literal["whole", "number", "truth", "choice", "text"]
KINDS: dict[type, FieldKind] = {int: "whole", float: "number", bool: "truth"}
TRUTH = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class RecipeField:
    """A value of a recipe: its name, such as `joint.epochs`, and how it is entered.

    `section` is the part before the dot, "" for the recipe's own values. `kind` "text" is a text,
    a number or a word such as "store", or nothing. `choices` are those of a "choice".
    """

    name: str
    section: str
    kind: FieldKind
    help: str
    choices: tuple[str, ...] = ()

    def read(self, entered: object) -> Any:
        """Return the value that was entered, as text or as a widget gives it.

        What cannot be read stays as it is; `change_recipe` refuses it with the field's name.
        """
        if isinstance(entered, str):
            return self._read_text(entered.strip())
        if self.kind == "whole" and isinstance(entered, float) and entered.is_integer():
            return int(entered)
        return entered

    def _read_text(self, text: str) -> Any:
        if self.kind == "truth":
            return TRUTH.get(text.lower(), text)
        if self.kind == "choice":
            return text
        if text in ("", "null"):
            return None
        for read in (int, float):
            try:
                return read(text)
            except ValueError:
                continue
        return text


@functools.cache
def recipe_fields() -> Sequence[RecipeField]:
    """Return every field, in the order of the recipe's sections; its own values come last."""
    found = list(_fields_of(Recipe, ""))
    return tuple(sorted(found, key=lambda each: each.section == ""))


def field_values(recipe: Recipe) -> dict[str, Any]:
    """Return the values of a recipe by the names of the fields."""
    tree = recipe.as_dict()
    return {
        each.name: functools.reduce(lambda value, key: value[key], each.name.split("."), tree)
        for each in recipe_fields()
    }


def read_changes(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the changes that assignments such as `joint.epochs=2` ask for, by field."""
    known = {each.name: each for each in recipe_fields()}
    changes = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InvalidInput(f"{assignment!r} is no assignment such as joint.epochs=2")
        field = known.get(name.strip())
        if field is None:
            names = ", ".join(known)
            raise InvalidInput(f"a recipe has no value {name.strip()!r} (known: {names})")
        changes[field.name] = field.read(text)
    return changes


def recipe_of_form(
    source: Any, entered: Mapping[str, object]
) -> tuple[Recipe, dict[str, str], list[str]]:
    """Return the recipe of a form that began with `source`, its origins, and the changed fields.

    Fields that are not `entered` keep their values. Raises `InvalidInput` with every problem.
    """
    values = field_values(change_recipe(source, {})[0])
    read = {
        each.name: each.read(entered[each.name]) for each in recipe_fields() if each.name in entered
    }
    changes = {name: value for name, value in read.items() if value != values[name]}
    recipe, origins = change_recipe(source, changes)
    return recipe, origins, list(changes)


def _fields_of(kind: Any, section: str) -> Iterator[RecipeField]:
    hints = get_type_hints(kind, include_extras=True)
    for each in fields(kind):
        hint = hints[each.name]
        if is_dataclass(hint):
            yield from _fields_of(hint, each.name)
            continue
        plain, help_ = hint.__origin__, hint.__metadata__[0]
        name = f"{section}.{each.name}" if section else each.name
        yield RecipeField(name, section, *_kind_of(plain, help_))


def _kind_of(hint: Any, help_: str) -> tuple[FieldKind, str, tuple[str, ...]]:
    parts = type_parts(hint)
    if len(parts) == 1 and get_origin(hint) is Literal:
        return "choice", help_, get_args(hint)
    return (KINDS.get(hint, "text") if len(parts) == 1 else "text"), help_, ()
