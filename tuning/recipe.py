"""The recipe: a short YAML file, read into frozen values. Knows no trainer.

Every problem in a file is collected and raised as one error. The origin of each value ("recipe",
"default" or "store") is kept and travels with the bundle. Why each default is what it is stands in
`tuning/recipes/default.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from engine.adapters.lora import MAX_RANK
from engine.adapters.soft_prompt import MAX_VIRTUAL_TOKENS
from engine.errors import InvalidInput
from engine.storage import digest_file
from tuning.plain_values import build, leaves
from tuning.rlhf_recipes import RewardRecipe, RlaifRecipe, RlooRecipe
from tuning.weight_formats import AskedFormat, Weights

DpoLoss = Literal["sigmoid", "ipo", "robust", "length-normalised"]
Reference = Literal["start", "base"]
SftAnswers = Literal["chosen", "demonstrations", "both"]
SoftPromptKind = Literal["prefix", "prompt", "p-tuning"]
FromStore = Literal["store"]  # a value that the snapshot knows


@dataclass(frozen=True, slots=True)
class AdapterRecipe:
    """LoRA (Hu et al. 2021) on every linear layer but the output head, or virtual tokens before the
    prompt (`tuning.methods.soft_prompt`).

    `rank_stabilised`: rsLoRA. `weight_decomposed`: DoRA, for export only. `virtual_tokens` is for
    the kinds that are not `lora`, the others for `lora`.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    rank_stabilised: bool = False
    weight_decomposed: bool = False
    kind: Literal["lora", SoftPromptKind] = "lora"
    virtual_tokens: int = 20


@dataclass(frozen=True, slots=True)
class SftRecipe:
    """Supervised fine-tuning on good answers; 0 epochs leaves it out.

    `answers`: the pairs' chosen ones, the demonstrations, or both, each text once.
    """

    epochs: float = 2
    learning_rate: float = 2e-4
    batch_pairs: int = 4
    answers: SftAnswers = "both"


@dataclass(frozen=True, slots=True)
class DpoRecipe:
    """Direct preference optimisation (Rafailov et al. 2023); 0 epochs leaves it out.

    `flip_rate` is the share of pairs whose sides are swapped, for the robust loss alone. The
    reference is the model as the stage starts, or the base model.
    """

    epochs: float = 1
    learning_rate: float = 2e-5
    batch_pairs: int = 4
    beta: float = 0.1
    sft_weight: float = 1.0
    loss: DpoLoss = "sigmoid"
    flip_rate: float | FromStore | None = None
    reference: Reference = "start"


@dataclass(frozen=True, slots=True)
class KtoRecipe:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024) on lone thumbs; off by default.

    The weights of good and bad answers; "store": from their counts in the snapshot.
    """

    epochs: float = 0
    learning_rate: float = 5e-5
    batch_answers: int = 8
    beta: float = 0.1
    desirable_weight: float | FromStore = "store"
    undesirable_weight: float | FromStore = "store"


@dataclass(frozen=True, slots=True)
class OrpoRecipe:
    """Odds ratio preference optimisation (Hong et al. 2024) on pairs; off by default.

    `odds_weight` is the paper's lambda, which trl calls beta.
    """

    epochs: float = 0
    learning_rate: float = 2e-4
    batch_pairs: int = 4
    odds_weight: float = 0.1


@dataclass(frozen=True, slots=True)
class ReplayRecipe:
    """Instruction data of another source, as a share of what an epoch of SFT reads.

    `file` is any file that `burnish feedback import` reads. `digest` is the file's own; reading
    the recipe fills it in, and a file that has changed since is refused.
    """

    file: str | None = None
    share: float = 0.1
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a training run, beside the base model and the snapshot."""

    adapter: AdapterRecipe = field(default_factory=AdapterRecipe)
    sft: SftRecipe = field(default_factory=SftRecipe)
    dpo: DpoRecipe = field(default_factory=DpoRecipe)
    kto: KtoRecipe = field(default_factory=KtoRecipe)
    orpo: OrpoRecipe = field(default_factory=OrpoRecipe)
    replay: ReplayRecipe = field(default_factory=ReplayRecipe)
    reward: RewardRecipe = field(default_factory=RewardRecipe)
    rloo: RlooRecipe = field(default_factory=RlooRecipe)
    rlaif: RlaifRecipe = field(default_factory=RlaifRecipe)
    weights: Weights = "dense"
    number_format: AskedFormat = "auto"
    max_sequence_tokens: int = 1024
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values; `recipe_from_dict` is its inverse."""
        return asdict(self)


def shipped_recipes() -> list[str]:
    """The names that `read_recipe` knows."""
    files = resources.files("tuning.recipes").iterdir()
    return sorted(file.name[:-5] for file in files if file.name.endswith(".yaml"))


def read_recipe(source: Path | str | None) -> Recipe:
    """The recipe in a file, the shipped one of that name, or the default.

    Raises `InvalidInput` with every problem.
    """
    return read_recipe_with_origins(source)[0]


def read_recipe_with_origins(source: Path | str | None) -> tuple[Recipe, dict[str, str]]:
    """The same, with where each value comes from: the bundle's `recipe.json` keeps both."""
    path = Path(source or "default")
    shipped = not path.is_file() and str(path) in shipped_recipes()
    try:
        text = _shipped_text(str(path)) if shipped else path.read_text("utf-8")
        values = yaml.safe_load(text)
    except FileNotFoundError as error:
        known = ", ".join(shipped_recipes())
        raise InvalidInput(
            f"cannot read the recipe: no file {str(path)!r} and no shipped recipe of that name"
            f" (shipped: {known})"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"cannot read the recipe: {error}") from error
    recipe = recipe_from_dict({} if values is None else values)
    return _with_replay_found(recipe, path.parent), origins(values)


def recipe_from_dict(values: Any) -> Recipe:
    """A recipe from plain values; missing ones take their defaults, unknown ones are errors."""
    problems: list[str] = []
    recipe: Recipe = build(Recipe, values, "", problems)
    if not problems:
        problems = list(_out_of_range(recipe))
    if problems:
        raise InvalidInput("recipe refused: " + "; ".join(problems))
    return recipe


def origins(values: Any) -> dict[str, str]:
    """Where each value of the recipe comes from: `{"dpo.beta": "recipe" | "default"}`."""
    return {name: "recipe" if given else "default" for name, given in leaves(Recipe, values or {})}


def _shipped_text(name: str) -> str:
    return resources.files("tuning.recipes").joinpath(f"{name}.yaml").read_text("utf-8")


def _with_replay_found(recipe: Recipe, folder: Path) -> Recipe:
    """The replay file by its whole path (relative ones start at the recipe), and its digest."""
    replay = recipe.replay
    if replay.file is None:
        return recipe
    file = folder / Path(replay.file).expanduser()
    if not file.is_file():
        raise InvalidInput(f"recipe refused: replay.file: there is no file {str(file)!r}")
    digest = replay.digest or digest_file(file)
    return replace(recipe, replay=replace(replay, file=str(file.resolve()), digest=digest))


def _out_of_range(recipe: Recipe) -> Iterator[str]:
    adapter, dpo, kto, replay = recipe.adapter, recipe.dpo, recipe.kto, recipe.replay
    stages = (recipe.sft, recipe.dpo, recipe.kto, recipe.orpo, recipe.rloo)
    weights = (kto.desirable_weight, kto.undesirable_weight)
    rules = {
        f"adapter.rank must lie in 1..{MAX_RANK}": 1 <= adapter.rank <= MAX_RANK,
        f"adapter.virtual_tokens must lie in 1..{MAX_VIRTUAL_TOKENS}": (
            1 <= adapter.virtual_tokens <= MAX_VIRTUAL_TOKENS
        ),
        "adapter.rank_stabilised and adapter.weight_decomposed need adapter.kind lora": (
            adapter.kind == "lora" or not (adapter.rank_stabilised or adapter.weight_decomposed)
        ),
        "orpo.epochs needs adapter.kind lora or prefix: trl's ORPO has no labels for the others'"
        " virtual tokens": adapter.kind in ("lora", "prefix") or recipe.orpo.epochs == 0,
        "adapter.alpha must be at least 1": adapter.alpha >= 1,
        "adapter.dropout must lie in [0, 1)": 0 <= adapter.dropout < 1,
        "epochs must not be negative, and not all be 0": (
            all(s.epochs >= 0 for s in stages) and any(s.epochs > 0 for s in stages)
        ),
        "learning_rate must lie in (0, 1)": all(0 < s.learning_rate < 1 for s in stages),
        "batch_pairs must be at least 1": (
            min(recipe.sft.batch_pairs, dpo.batch_pairs, recipe.orpo.batch_pairs) >= 1
        ),
        "dpo.beta must be positive": dpo.beta > 0,
        "dpo.sft_weight must not be negative": dpo.sft_weight >= 0,
        "kto.batch_answers must be at least 2, since the others tell the drift from the"
        " reference": kto.batch_answers >= 2,
        "kto.beta must be positive": kto.beta > 0,
        "kto weights must be positive": all(w == "store" or float(w) > 0 for w in weights),
        "orpo.odds_weight must be positive": recipe.orpo.odds_weight > 0,
        "replay.share must lie in (0, 1)": 0 < replay.share < 1,
        "replay.file needs sft.epochs": replay.file is None or recipe.sft.epochs > 0,
        "rloo.epochs needs adapter.kind lora": adapter.kind == "lora" or recipe.rloo.epochs == 0,
        "adapter.kind other than lora needs weights: dense": (
            adapter.kind == "lora" or recipe.weights == "dense"
        ),
        "adapter.weight_decomposed needs weights: dense": (
            recipe.weights == "dense" or not adapter.weight_decomposed
        ),
        "max_sequence_tokens must be at least 16": recipe.max_sequence_tokens >= 16,
        "seed must not be negative": recipe.seed >= 0,
    }
    yield from (problem for problem, holds in rules.items() if not holds)
    yield from _flip_rate_problems(dpo)
    yield from _rlhf_problems(recipe)


def _flip_rate_problems(dpo: DpoRecipe) -> Iterator[str]:
    """A flip rate without the loss that reads it, and that loss without one."""
    rate = dpo.flip_rate
    if dpo.loss != "robust" and rate is not None:
        yield f"dpo.flip_rate does nothing with dpo.loss {dpo.loss}, only with robust"
    elif dpo.loss == "robust" and rate is None:
        yield "dpo.loss robust needs dpo.flip_rate: a number, or store for the snapshot's own"
    elif isinstance(rate, float) and not 0 < rate < 0.5:
        yield "dpo.flip_rate must lie in (0, 0.5), since 0 is the sigmoid loss"


def _rlhf_problems(recipe: Recipe) -> Iterator[str]:
    """Each section's own, and what one section needs of another."""
    for section in (recipe.reward, recipe.rloo, recipe.rlaif):
        yield from section.problems()
    if recipe.rloo.epochs > 0 and recipe.reward.epochs <= 0:
        yield "rloo.epochs needs reward.epochs, since a reward model tells good answers from bad"
    if recipe.rlaif.labels is not None and recipe.dpo.epochs <= 0 and recipe.orpo.epochs <= 0:
        yield "rlaif.labels needs dpo.epochs or orpo.epochs, which alone read them"
    if recipe.max_sequence_tokens <= recipe.rloo.max_new_tokens and recipe.rloo.epochs > 0:
        yield "rloo.max_new_tokens must be below max_sequence_tokens, or no prompt fits"
