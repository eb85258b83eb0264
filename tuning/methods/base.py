"""The interface of a training method.

A method is a section of the recipe. trl takes seconds to import, so the trainer is in a module of
its own, `<name>_trainer`, which is imported when a run needs it. Imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from tuning.rows import ExampleKind, TrainingData

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, Trainer

    from tuning.methods.stage import Stage

SoftPromptKind = Literal["prefix", "prompt", "p-tuning"]
TrainedAdapter = Literal["lora", SoftPromptKind]
TrainedKind = Literal[TrainedAdapter, "full"]  # full: all weights, and no adapter


class Method(ABC):
    """A way of training an adapter, with the values that a recipe gives it.

    Subclasses are frozen dataclasses whose fields are the section's keys; with 0 `epochs` a method
    is left out.
    """

    __slots__ = ()
    epochs: float
    learning_rate: float
    needs: ClassVar[str]  # what a snapshot without `rows` lacks, for a message
    # Those that it can train
    adapter_kinds: ClassVar[tuple[TrainedKind, ...]] = get_args(TrainedAdapter)

    def rules(self) -> Mapping[str, bool]:
        """Each rule on the section's own values, as a message without its name, and if it holds."""
        return {}

    @property
    @abstractmethod
    def example_kinds(self) -> frozenset[ExampleKind]:
        """The kinds of a snapshot's examples that it learns from."""

    @property
    def batch_size(self) -> int:
        """The examples in a step: the section's field that begins with `batch_`."""
        section: Any = self
        (size,) = (
            int(getattr(self, each.name))
            for each in fields(section)
            if each.name.startswith("batch_")
        )
        return size

    @property
    def reference_is_base(self) -> bool:
        """Return whether the loss compares with the base model, not the adapter as it came in."""
        return False

    def store_values(self, *, flip_rate: float | None, good: int, bad: int) -> dict[str, float]:
        """Values that the recipe leaves to the store, found from a snapshot's statistics.

        `flip_rate` is how often a single vote errs, None where the store cannot tell; `good` and
        `bad` are numbers of lone judgements. Raises `InvalidInput` where the store's value is of
        no use.
        """
        return {}

    @abstractmethod
    def rows(self, data: TrainingData) -> Sequence[Mapping[str, Any]]:
        """The rows of the dataset that `trainer` takes."""

    def trainer(self, model: PeftModel | PreTrainedModel, rows: Dataset, stage: Stage) -> Trainer:
        """Make a trainer of the model's `default` adapter, or of a model without one.

        By default it is `make_<name>_trainer` of the module `<name>_trainer` beside the method's.
        """
        module = f"{type(self).__module__}_trainer"
        make = getattr(import_module(module), f"make_{module.rpartition('.')[2]}")
        trainer: Trainer = make(model, rows, self, stage)
        return trainer

    def train(self, model: PeftModel | PreTrainedModel, rows: Dataset, stage: Stage) -> None:
        """Train what `trainer` trains in place, from the stage's last checkpoint on."""
        self.trainer(model, rows, stage).train(resume_from_checkpoint=stage.checkpoint)


def broken_rules(name: str, rules: Mapping[str, bool]) -> list[str]:
    """The rules of a recipe's section that do not hold, as messages."""
    return [f"{name}.{rule}" for rule, holds in rules.items() if not holds]
