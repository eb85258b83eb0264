"""The recipe: a short YAML file, read into frozen values. Knows no trainer.

Every problem in a file is collected and raised as one error. The origin of each value (recipe or
default) is kept and travels with the bundle.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from engine.adapters.bundle import MAX_RANK
from engine.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class AdapterRecipe:
    """LoRA (Hu et al. 2021) on every linear layer but the output head."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class SftRecipe:
    """Supervised fine-tuning on the chosen answers; 0 epochs leaves it out."""

    epochs: float = 2
    learning_rate: float = 2e-4
    batch_pairs: int = 4


@dataclass(frozen=True, slots=True)
class DpoRecipe:
    """Direct preference optimisation (Rafailov et al. 2023); 0 epochs leaves it out."""

    epochs: float = 1
    learning_rate: float = 2e-5
    batch_pairs: int = 4
    beta: float = 0.1
    sft_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a training run, beside the base model and the snapshot."""

    adapter: AdapterRecipe = field(default_factory=AdapterRecipe)
    sft: SftRecipe = field(default_factory=SftRecipe)
    dpo: DpoRecipe = field(default_factory=DpoRecipe)
    max_sequence_tokens: int = 1024
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values; `recipe_from_dict` is its inverse."""
        return asdict(self)


def default_recipe_text() -> str:
    """The shipped recipe, with the reason of each value."""
    return resources.files("tuning.recipes").joinpath("default.yaml").read_text("utf-8")


def read_recipe(path: Path | None) -> Recipe:
    """The recipe in a file, or the shipped one; raises `InvalidInput` with every problem."""
    try:
        text = default_recipe_text() if path is None else path.read_text("utf-8")
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"cannot read the recipe: {error}") from error
    return recipe_from_dict({} if values is None else values)


def recipe_from_dict(values: Any) -> Recipe:
    """A recipe from plain values; missing ones take their defaults, unknown ones are errors."""
    problems: list[str] = []
    recipe: Recipe = _build(Recipe, values, "", problems)
    if not problems:
        problems = _out_of_range(recipe)
    if problems:
        raise InvalidInput("recipe refused: " + "; ".join(problems))
    return recipe


def origins(values: Any) -> dict[str, str]:
    """Where each value of the recipe comes from: `{"dpo.beta": "recipe" | "default"}`."""
    return dict(_origins(Recipe, values or {}, ""))


def _origins(kind: Any, values: Any, prefix: str) -> Any:
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from _origins(hint, values.get(name, {}), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "recipe" if name in values else "default"


def _build(kind: Any, values: Any, prefix: str, problems: list[str]) -> Any:
    hints = get_type_hints(kind)
    if not isinstance(values, dict):
        problems.append(f"{prefix.rstrip('.') or 'recipe'}: expected keys and values")
        return kind()
    for unknown in sorted(set(map(str, values)) - set(hints)):
        known = ", ".join(f.name for f in fields(kind))
        problems.append(f"{prefix}{unknown}: unknown key (known: {known})")
    chosen = {}
    for name, hint in hints.items():
        if name not in values:
            continue
        value = values[name]
        if is_dataclass(hint):
            chosen[name] = _build(hint, value, f"{prefix}{name}.", problems)
        elif not _is_a(hint, value):
            problems.append(f"{prefix}{name}: {value!r} is not {_A[hint]}")
        else:
            chosen[name] = hint(value)
    return kind(**chosen)


def _is_a(kind: type, value: Any) -> bool:
    """Whether a YAML value is a finite number of this kind; true and false are not."""
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        return False
    return abs(value) < 1e15  # leaves out infinities, NaN, and what no float holds


_A = {int: "a whole number", float: "a number"}


def _out_of_range(recipe: Recipe) -> list[str]:
    adapter, sft, dpo = recipe.adapter, recipe.sft, recipe.dpo
    rules = {
        f"adapter.rank must lie in 1..{MAX_RANK}": 1 <= adapter.rank <= MAX_RANK,
        "adapter.alpha must be at least 1": adapter.alpha >= 1,
        "adapter.dropout must lie in [0, 1)": 0 <= adapter.dropout < 1,
        "epochs must not be negative, and not all be 0": (
            sft.epochs >= 0 and dpo.epochs >= 0 and sft.epochs + dpo.epochs > 0
        ),
        "learning_rate must lie in (0, 1)": (
            0 < sft.learning_rate < 1 and 0 < dpo.learning_rate < 1
        ),
        "batch_pairs must be at least 1": min(sft.batch_pairs, dpo.batch_pairs) >= 1,
        "dpo.beta must be positive": dpo.beta > 0,
        "dpo.sft_weight must not be negative": dpo.sft_weight >= 0,
        "max_sequence_tokens must be at least 16": recipe.max_sequence_tokens >= 16,
        "seed must not be negative": recipe.seed >= 0,
    }
    return [problem for problem, holds in rules.items() if not holds]
