"""The recipe: a short YAML file, read into frozen values. Knows no trainer.

Every problem in a file is collected and raised as one error. The origin of each value ("recipe",
"default", "store" or "asked") is kept and travels with the bundle. The reason for each default
stands in `tuning/recipes/default.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import yaml

from engine.errors import InvalidInput
from engine.storage import digest_file
from tuning.methods.base import Method, TrainedKind, broken_rules
from tuning.methods.dpo import DpoRecipe
from tuning.methods.joint import JointRecipe
from tuning.methods.kto import KtoRecipe
from tuning.methods.orpo import OrpoRecipe
from tuning.methods.pretrain import PretrainRecipe
from tuning.methods.reward import RewardRecipe
from tuning.methods.rloo import RlooRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe_sections import AdapterRecipe, ReplayRecipe, RlaifRecipe, SearchRecipe
from tuning.recipe_values import build_dataclass, leaves
from tuning.weight_formats import AskedFormat, Weights


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a training run, beside the base model and the snapshot.

    Stages run in the order of the methods' fields.
    """

    adapter: AdapterRecipe = field(default_factory=AdapterRecipe)
    pretrain: PretrainRecipe = field(default_factory=PretrainRecipe)
    joint: JointRecipe = field(default_factory=JointRecipe)
    sft: SftRecipe = field(default_factory=SftRecipe)
    dpo: DpoRecipe = field(default_factory=DpoRecipe)
    kto: KtoRecipe = field(default_factory=KtoRecipe)
    orpo: OrpoRecipe = field(default_factory=OrpoRecipe)
    rloo: RlooRecipe = field(default_factory=RlooRecipe)
    replay: ReplayRecipe = field(default_factory=ReplayRecipe)
    reward: RewardRecipe = field(default_factory=RewardRecipe)
    rlaif: RlaifRecipe = field(default_factory=RlaifRecipe)
    search: SearchRecipe = field(default_factory=SearchRecipe)
    weights: Annotated[
        Weights, "how the base model's weights are held: fewer bits take less memory"
    ] = "dense"
    number_format: Annotated[
        AskedFormat, "number format of training; auto takes the faster one here"
    ] = "auto"
    max_sequence_tokens: Annotated[int, "longer examples are left out"] = 1024
    seed: Annotated[int, "same seed, same adapter"] = 0

    @property
    def methods(self) -> dict[str, Method]:
        """The sections of training methods, by their names."""
        sections = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: each for name, each in sections.items() if isinstance(each, Method)}

    @property
    def stages(self) -> dict[str, Method]:
        """The methods that this recipe asks for, in the order in which they run."""
        return {name: method for name, method in self.methods.items() if method.epochs > 0}

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values; `recipe_from_dict` is its inverse."""
        return asdict(self)


METHODS: Mapping[str, type[Method]] = MappingProxyType(
    {name: type(method) for name, method in Recipe().methods.items()}
)
STAGED = METHODS.keys() - {"pretrain", "joint"}


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
    return change_recipe(source, {})


def change_recipe(
    source: Path | str | None, changes: Mapping[str, Any]
) -> tuple[Recipe, dict[str, str]]:
    """The recipe of a source with some values changed, and where each value comes from.

    `changes` are by name, such as `dpo.beta`; their origin is "asked". Raises `InvalidInput` with
    every problem.
    """
    given, folder = _read_values(source)
    values = _with_default_methods(given)
    for name, value in changes.items():
        values = _with_change(values, name, value)
    recipe = recipe_from_dict(values)
    recipe = _with_text_found(_with_replay_found(recipe, folder), folder)
    return recipe, origins(given) | dict.fromkeys(changes, "asked")


def _with_change(values: Any, name: str, value: Any) -> Any:
    """Plain values with one changed; those of another shape stay, to be refused as they are."""
    section, _, key = name.rpartition(".")
    inner = values.get(section, {}) if isinstance(values, dict) else None
    if not isinstance(inner, dict):
        return values
    return {**values, section: {**inner, key: value}} if section else {**values, key: value}


def _read_values(source: Path | str | None) -> tuple[Any, Path]:
    """The plain values of a file or a shipped recipe, and the folder that its paths start at."""
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
    return {} if values is None else values, path.parent


def recipe_from_dict(values: Any) -> Recipe:
    """A recipe from plain values; missing ones take their defaults, unknown ones are errors."""
    problems: list[str] = []
    recipe: Recipe = build_dataclass(Recipe, values, "", problems)
    if not problems:
        problems = list(_problems_of(recipe))
    if problems:
        raise InvalidInput("recipe refused: " + "; ".join(problems))
    return recipe


def origins(values: Any) -> dict[str, str]:
    """The origin of each value of the recipe: `{"dpo.beta": "recipe" | "default"}`."""
    return {name: "recipe" if given else "default" for name, given in leaves(Recipe, values or {})}


def _shipped_text(name: str) -> str:
    return resources.files("tuning.recipes").joinpath(f"{name}.yaml").read_text("utf-8")


def _with_default_methods(values: Any) -> Any:
    """A file's values, with the default recipe's methods where it names no stage.

    A file that names one trains in stages, as its sections say. Continued pretraining comes before
    either way.
    """
    if not isinstance(values, dict) or values.keys() & STAGED:
        return values
    default = yaml.safe_load(_shipped_text("default"))
    methods = {name: default[name] for name in STAGED}
    joint = values.get("joint") or {}
    given = {"joint": {**default["joint"], **joint} if isinstance(joint, dict) else joint}
    return {**methods, **values, **given}


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


def _with_text_found(recipe: Recipe, folder: Path) -> Recipe:
    """The text of continued pretraining, likewise; one that is not there is refused."""
    from tuning.text_blocks import digest_text

    pretrain = recipe.pretrain
    if pretrain.text is None:
        return recipe
    text = (folder / Path(pretrain.text).expanduser()).resolve()
    found = replace(pretrain, text=str(text), digest=pretrain.digest or digest_text(text))
    return replace(recipe, pretrain=found)


def fill_from_store(
    recipe: Recipe, origins: dict[str, str], *, flip_rate: float | None, good: int, bad: int
) -> tuple[Recipe, dict[str, str]]:
    """Replace each "store" of a stage that runs; the origin of the new value is "store".

    See `Method.store_values`. Raises `InvalidInput` where the store's value is of no use.
    """
    for name, method in recipe.stages.items():
        values = method.store_values(flip_rate=flip_rate, good=good, bad=bad)
        section: Any = replace(method, **values)  # type: ignore[type-var]
        recipe = replace(recipe, **{name: section})
        origins = origins | {f"{name}.{key}": "store" for key in values}
    return recipe, origins


def _problems_of(recipe: Recipe) -> Iterator[str]:
    """The rules that do not hold: of each section, and between sections."""
    for each in fields(recipe):
        section = getattr(recipe, each.name)
        if hasattr(section, "rules"):
            yield from broken_rules(each.name, section.rules())
    for name, method in recipe.methods.items():
        yield from _method_problems(name, method, recipe.adapter.kind)
    rules = {
        "the epochs must not all be 0": any(m.epochs > 0 for m in recipe.methods.values()),
        "adapter.kind other than lora needs weights: dense": (
            recipe.adapter.kind == "lora" or recipe.weights == "dense"
        ),
        "adapter.weight_decomposed needs weights: dense": (
            recipe.weights == "dense" or not recipe.adapter.weight_decomposed
        ),
        "replay.file needs joint.epochs or sft.epochs": (
            recipe.replay.file is None or recipe.joint.epochs > 0 or recipe.sft.epochs > 0
        ),
        "rloo.epochs needs reward.epochs, since a reward model tells good answers from bad": (
            recipe.rloo.epochs <= 0 or recipe.reward.epochs > 0
        ),
        "rloo.max_new_tokens must be below max_sequence_tokens, or no prompt fits": (
            recipe.rloo.epochs <= 0 or recipe.max_sequence_tokens > recipe.rloo.max_new_tokens
        ),
        "rlaif.labels needs joint.epochs, dpo.epochs or orpo.epochs, which alone read them": (
            recipe.rlaif.labels is None
            or any(each.epochs > 0 for each in (recipe.joint, recipe.dpo, recipe.orpo))
        ),
        "search.rates needs joint.epochs, whose learning rate it chooses": (
            recipe.search.rates == 0 or recipe.joint.epochs > 0
        ),
        "pretrain.block_tokens must not exceed max_sequence_tokens": (
            recipe.pretrain.epochs <= 0
            or recipe.pretrain.block_tokens <= recipe.max_sequence_tokens
        ),
        "max_sequence_tokens must be at least 16": recipe.max_sequence_tokens >= 16,
        "seed must not be negative": recipe.seed >= 0,
    }
    yield from (rule for rule, holds in rules.items() if not holds)


def _method_problems(name: str, method: Method, kind: TrainedKind) -> list[str]:
    """The rules of every method that do not hold for this one."""
    kinds = " or ".join(method.adapter_kinds)
    return broken_rules(
        name,
        {
            "epochs must not be negative": method.epochs >= 0,
            "learning_rate must lie in (0, 1)": 0 < method.learning_rate < 1,
            f"epochs needs adapter.kind {kinds}": (
                method.epochs == 0 or kind in method.adapter_kinds
            ),
        },
    )
