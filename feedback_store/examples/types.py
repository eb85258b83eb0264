"""Training examples: pairs, unpaired judgements and demonstrations, each with its origin. Pure.

The value types that the rules make, snapshots freeze and tuning reads. Knows nothing of SQL, files
or tokens. An example's id depends on the statements it rests on alone, so that an operator's
decision about it outlives a rebuild.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from engine.errors import InvalidInput
from engine.messages import Message, messages_from_dicts
from engine.prompts.reasoning import join_reasoning
from engine.storage import digest_bytes
from feedback_store.records import WrittenAnswer

PairSource = Literal["correction", "comparison", "votes"]
UnpairedSource = Literal["vote", "comparison"]
DemonstrationSource = Literal["correction", "vote"]
Policy = Literal["on", "off"]
Redact = Callable[[str], str]
PERSON, IMPORTED = "person", "imported"  # the base of a side that no model here wrote


@dataclass(frozen=True, slots=True)
class Side:
    """One completion of a prompt: an answer, and the thought that led to it.

    A thought from a `<think>` block keeps its tags, any other stands before a line "Answer:". A
    side that is not `complete` was cut off (by the token limit or the Stop button): its text does
    not end where an answer would, and no end token is trained. `base` and `adapter` are the digests
    of the model and the adapter that wrote it; without an adapter it was the base model. A person's
    own text has the base "person", a text from a file "imported". `thinking` says whether thoughts
    were switched on or off in its prompt; None where the chat template decided.
    """

    text: str
    thought: str
    complete: bool
    answer_id: str
    base: str
    adapter: str | None
    thinking: bool | None = None

    @classmethod
    def of(cls, answer: WrittenAnswer) -> Side:
        """An answer as it was given."""
        return cls(
            text=answer.text,
            thought=answer.thought,
            complete=answer.complete,
            answer_id=answer.id,
            base=answer.base_digest,
            adapter=answer.adapter_digest,
            thinking=answer.thinking,
        )

    @property
    def full_text(self) -> str:
        """Thought and answer as the model writes them."""
        return join_reasoning(self.thought, self.text)

    def redacted(self, redact: Redact) -> Side:
        """The side with `redact` applied to its texts."""
        return replace(self, text=redact(self.text), thought=redact(self.thought))


@dataclass(frozen=True, slots=True)
class Origin:
    """The statements that an example rests on, and the conversation they were made in.

    `asked_by` is the user who asked, which snapshots do not keep.
    """

    conversation_id: str
    template_hash: str
    event_ids: tuple[int, ...]
    user_ids: tuple[str, ...]
    asked_by: str = field(default="", compare=False)

    def is_after(self, event: int) -> bool:
        """Return whether all of the statements came after an event."""
        return min(self.event_ids, default=0) > event


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference pair: for this prompt, `chosen` is better than `rejected`."""

    id: str
    prompt: tuple[Message, ...]
    chosen: Side
    rejected: Side
    source: PairSource
    origin: Origin

    @property
    def sides(self) -> tuple[Side, ...]:
        """The completions."""
        return self.chosen, self.rejected

    def as_dict(self) -> dict[str, Any]:
        """A snapshot's row: TRL's conversational preference format, with the origin beside it."""
        return {**_head(self), **_side("chosen", self.chosen), **_side("rejected", self.rejected)}


@dataclass(frozen=True, slots=True)
class Unpaired:
    """A lone judgement, for KTO: for this prompt, `completion` is good (`label`) or bad."""

    id: str
    prompt: tuple[Message, ...]
    completion: Side
    label: bool
    source: UnpairedSource
    origin: Origin

    @property
    def sides(self) -> tuple[Side, ...]:
        """The one completion."""
        return (self.completion,)

    def as_dict(self) -> dict[str, Any]:
        """A snapshot's row: TRL's conversational unpaired format, with the origin beside it."""
        return {**_head(self), **_side("completion", self.completion), "label": self.label}


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A completion of a prompt that is worth imitating: an example for SFT."""

    id: str
    prompt: tuple[Message, ...]
    completion: Side
    source: DemonstrationSource
    origin: Origin

    @property
    def sides(self) -> tuple[Side, ...]:
        """The one completion."""
        return (self.completion,)

    def as_dict(self) -> dict[str, Any]:
        """A snapshot's row: TRL's conversational prompt-completion format, with its origin."""
        return {**_head(self), **_side("completion", self.completion)}


TrainingExample = Pair | Unpaired | Demonstration
EXAMPLE_KINDS = ("pairs", "unpaired", "demonstrations")


@dataclass(frozen=True, slots=True)
class SetAside:
    """Evidence that no example uses, and the reason."""

    reason: str
    conversation_id: str
    answer_ids: tuple[str, ...]
    event_ids: tuple[int, ...]
    user_ids: tuple[str, ...]
    example_id: str = ""  # where it would have been an example


@dataclass
class Examples:
    """Examples to train on, and all evidence that is set aside.

    `flip_rate` is the estimated share of votes that point the wrong way: see `trust.Trust`.
    """

    pairs: list[Pair] = field(default_factory=list)
    unpaired: list[Unpaired] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    flip_rate: float | None = None

    @property
    def set_aside_counts(self) -> dict[str, int]:
        """The number of items set aside for each reason."""
        return dict(sorted(Counter(item.reason for item in self.set_aside).items()))

    @property
    def every(self) -> list[TrainingExample]:
        """The examples of all kinds, pairs first."""
        return [*self.pairs, *self.unpaired, *self.demonstrations]

    def of_kind(self, kind: str) -> list[TrainingExample]:
        """The examples of one kind; raises `InvalidInput` for an unknown kind."""
        if kind not in EXAMPLE_KINDS:
            raise InvalidInput(f"unknown kind {kind[:40]!r}; known: {', '.join(EXAMPLE_KINDS)}")
        examples: list[TrainingExample] = getattr(self, kind)
        return examples


def shared_thinking(sides: Sequence[Side]) -> bool | None:
    """The switch of thoughts that all sides of one prompt have; None where they differ."""
    first, *others = {side.thinking for side in sides}
    return None if others else first


def set_aside(reason: str, example: TrainingExample) -> SetAside:
    """An example that is not trained on."""
    origin = example.origin
    return SetAside(
        reason=reason,
        conversation_id=origin.conversation_id,
        answer_ids=tuple(side.answer_id for side in example.sides),
        event_ids=origin.event_ids,
        user_ids=origin.user_ids,
        example_id=example.id,
    )


def label_of(example: TrainingExample) -> bool:
    """Return whether an example is an unpaired one that is good."""
    return isinstance(example, Unpaired) and example.label


def redacted(example: TrainingExample, redact: Redact) -> TrainingExample:
    """An example with `redact` applied to every text."""
    prompt = redacted_prompt(example.prompt, redact)
    if isinstance(example, Pair):
        chosen, rejected = (side.redacted(redact) for side in example.sides)
        return replace(example, prompt=prompt, chosen=chosen, rejected=rejected)
    return replace(example, prompt=prompt, completion=example.completion.redacted(redact))


def redacted_prompt(prompt: Sequence[Message], redact: Redact) -> tuple[Message, ...]:
    """A prompt with `redact` applied to every message."""
    return tuple(message.changed(redact) for message in prompt)


def example_id(
    kind: PairSource | Literal["unpaired", "demonstration"],
    sides: Sequence[Side],
    source: str,
    user_ids: Sequence[str],
) -> str:
    """The id of a statement about answers: the same whoever else joins in.

    A correction is told from somebody else's correction of the same answer by its author.
    """
    author = list(user_ids) if source == "correction" else []
    named = "\n".join([kind, *(side.answer_id for side in sides), *author])
    return digest_bytes(named.encode())


def correction_ids(answer_id: str, author: str) -> tuple[str, str]:
    """The ids of what a person's correction of an answer makes: a pair and a demonstration."""
    side = Side("", "", True, answer_id, PERSON, None)
    return (
        example_id("correction", (side, side), "correction", [author]),
        example_id("demonstration", (side,), "correction", [author]),
    )


def derived_id(example: TrainingExample) -> str:
    """The id that an example must have."""
    origin = example.origin
    if isinstance(example, Pair):
        return example_id(example.source, example.sides, example.source, origin.user_ids)
    kind: Literal["unpaired", "demonstration"] = (
        "unpaired" if isinstance(example, Unpaired) else "demonstration"
    )
    return example_id(kind, example.sides, example.source, origin.user_ids)


def policy_of(example: TrainingExample, base: str, incumbent: str | None) -> Policy:
    """The policy that wrote an example's sides: "on", if it is the adapter that is live now.

    A person's correction is nobody's policy and does not count; imported text is off-policy.
    """
    written = [side for side in example.sides if side.base != PERSON]
    same = all(side.base == base and side.adapter == incumbent for side in written)
    return "on" if written and same else "off"


def pair_from_dict(row: Mapping[str, Any]) -> Pair:
    """Inverse of `Pair.as_dict`."""
    return Pair(
        chosen=_side_of(row, "chosen"), rejected=_side_of(row, "rejected"), **_common_fields(row)
    )


def unpaired_from_dict(row: Mapping[str, Any]) -> Unpaired:
    """Inverse of `Unpaired.as_dict`."""
    return Unpaired(
        completion=_side_of(row, "completion"), label=row["label"], **_common_fields(row)
    )


def demonstration_from_dict(row: Mapping[str, Any]) -> Demonstration:
    """Inverse of `Demonstration.as_dict`."""
    return Demonstration(completion=_side_of(row, "completion"), **_common_fields(row))


def _head(example: TrainingExample) -> dict[str, Any]:
    origin = asdict(example.origin)
    del origin["asked_by"]
    return {
        "id": example.id,
        "prompt": [message.as_dict() for message in example.prompt],
        "source": example.source,
        **origin,
    }


def _side(name: str, side: Side) -> dict[str, Any]:
    row = asdict(side)
    text = row.pop("text")
    if side.thinking is None:  # rows without a switch are those of older snapshots
        del row["thinking"]
    return {name: [Message("assistant", text).as_dict()]} | {
        f"{name}_{key}": value for key, value in row.items()
    }


def _side_of(row: Mapping[str, Any], name: str) -> Side:
    (message,) = messages_from_dicts(row[name])
    keys = Side.__dataclass_fields__.keys() - {"text", "thinking"}
    thinking = row.get(f"{name}_thinking")
    return Side(message.content, thinking=thinking, **{key: row[f"{name}_{key}"] for key in keys})


def _common_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    origin = Origin(
        conversation_id=row["conversation_id"],
        template_hash=row["template_hash"],
        event_ids=tuple(row["event_ids"]),
        user_ids=tuple(row["user_ids"]),
    )
    prompt = messages_from_dicts(row["prompt"])
    return {"id": row["id"], "prompt": prompt, "source": row["source"], "origin": origin}
