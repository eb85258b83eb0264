"""The events of a tuning job, and the lines of its `progress.jsonl` that hold them. No user text.

`encode` and `decode` alone know the lines; docs/formats.md describes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """Something that happened in a job; `at` is when it was written, in Unix seconds."""

    at: float | None = field(default=None, compare=False)


Report = Callable[[JobEvent], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(JobEvent):
    """A process began, or resumed, the job."""

    pid: int
    processes: int = 1
    threads: int  # of this process
    priority: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormatChosen(JobEvent):
    """The number format and why; seconds are of one product, by format, where measured."""

    number_format: str
    reason: str
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlanned(JobEvent):
    """The plan of a CUDA device's memory: whether the run fits, and bytes by use."""

    decision: str
    reason: str
    bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelsChosen(JobEvent):
    """The kernels that compute, and the reason."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRead(JobEvent):
    """The number of rows to train on, and the conversations of those that are too long."""

    pairs: int
    answers: int = 0
    lone_judgements: int = 0
    replayed: int = 0
    ai_pairs: int = 0
    blocks: int = 0  # of plain text
    too_long: int
    too_long_conversations: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLeftOut(JobEvent):
    """A stage of the recipe has no rows."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencesRead(JobEvent):
    """The number of rows with reference log-probabilities, and of those that were cached."""

    rows: int
    cached: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone(JobEvent):
    """One optimizer step of a stage. Numbers that a method does not have are None."""

    stage: str
    step: int
    steps: int
    seconds: float  # since the stage began or was resumed
    eta_seconds: float
    memory_bytes: int = 0
    peak_memory_bytes: int = 0
    tokens_per_second: float | None = None
    loss: float
    reward_chosen: float | None = None
    reward_rejected: float | None = None
    reward_accuracy: float | None = None
    reward_margin: float | None = None
    reward: float | None = None
    kl: float | None = None
    answer_tokens: float | None = None
    gradient_norm: float | None = None
    tokens: float | None = None
    # Of the joint objective: the loss of each kind of evidence, its share of the gradient's norm,
    # and the rewards of judged answers
    pair_loss: float | None = None
    judgement_loss: float | None = None
    demonstration_loss: float | None = None
    pair_gradient_share: float | None = None
    judgement_gradient_share: float | None = None
    demonstration_gradient_share: float | None = None
    reward_good: float | None = None
    reward_bad: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLeftOut(JobEvent):
    """The learning rate is not searched."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialScored(JobEvent):
    """A run of the search was scored on the slice: `tuning.methods.joint_loss.SliceScore`."""

    learning_rate: float
    step: int
    loss: float
    preference_accuracy: float | None = None
    reward_accuracy: float | None = None
    chosen: float | None = None
    good_above_bad: float | None = None
    drift: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchDone(JobEvent):
    """The learning rate and the step of the adapter that is kept; `steps` is the most there is."""

    learning_rate: float
    step: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModelMade(JobEvent):
    """A reward model was published; its accuracy on held-out pairs, None where there are none."""

    reward_model: str
    heldout_pairs: int
    heldout_accuracy: float | None
    longer_wins_accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePublished(JobEvent):
    """The job's bundle is there; its last event."""

    bundle: str


NAMES_ON_DISK: Mapping[type[JobEvent], str] = MappingProxyType(
    {
        JobStarted: "started",
        NumberFormatChosen: "number format",
        MemoryPlanned: "memory plan",
        KernelsChosen: "kernels",
        DataRead: "data",
        StageLeftOut: "left out",
        ReferencesRead: "reference",
        StepDone: "step",
        SearchLeftOut: "search left out",
        TrialScored: "trial",
        SearchDone: "search",
        RewardModelMade: "reward model",
        BundlePublished: "bundle",
    }
)
_TYPES = {name: kind for kind, name in NAMES_ON_DISK.items()}


def encode(event: JobEvent) -> dict[str, Any]:
    """The JSON object of an event, without its optional fields that are None."""
    values = {
        each.name: value
        for each in fields(event)
        if (value := getattr(event, each.name)) is not None or each.default is not None
    }
    written = {"at": values.pop("at")} if "at" in values else {}
    return {**written, "event": NAMES_ON_DISK[type(event)], **values}


def decode(document: Mapping[str, Any]) -> JobEvent | None:
    """The event of a JSON object; None where another version of Burnish wrote it."""
    kind = _TYPES.get(str(document.get("event")))
    if kind is None:
        return None
    known = {each.name for each in fields(kind)} & document.keys()
    try:
        return kind(**{name: document[name] for name in known})
    except TypeError:  # a field is missing
        return None
