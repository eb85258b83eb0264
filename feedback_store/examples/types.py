"""What a model is trained on: pairs, lone judgements and demonstrations, each knowing its reason.

The value types that pairing makes, snapshots freeze and tuning reads. Knows nothing of SQL, files
or tokens. An example's id depends on the statements it rests on alone, so that an operator's
decision about it outlives a rebuild.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from engine.messages import Message, messages_from_dicts
from engine.prompts.reasoning import join_reasoning
from engine.storage import digest_bytes

PairSource = Literal["correction", "comparison", "votes"]
UnpairedSource = Literal["vote", "comparison"]
DemonstrationSource = Literal["correction", "vote"]
Policy = Literal["on", "off"]
PERSON, IMPORTED = "person", "imported"  # the base of a side that no model here wrote


@dataclass(frozen=True, slots=True)
class Side:
    """One completion. Thought and answer are apart; together they are what the model wrote. A
    thought from a `<think>` block keeps its tags, any other stands before a line "Answer:".

    One that is not complete was cut off (by the token limit or the Stop button), so its text does
    not end where an answer would, and no end token is trained. `base` and `adapter` name who wrote
    it: digests; adapter null is the base model itself. A person's own text has `base` "person",
    one from a file "imported".
    """

    text: str
    thought: str
    complete: bool
    answer_id: str
    base: str
    adapter: str | None

    @property
    def full_text(self) -> str:
        """Thought and answer as the model writes them."""
        return join_reasoning(self.thought, self.text)


@dataclass(frozen=True, slots=True)
class Origin:
    """Why an example is here. `conversation_id` is what splits and statistics group by."""

    conversation_id: str
    template_hash: str
    event_ids: tuple[int, ...]
    user_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """For this prompt, `chosen` is better than `rejected`."""

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
        return {
            **_head(self),
            **_side("chosen", self.chosen),
            **_side("rejected", self.rejected),
        }


@dataclass(frozen=True, slots=True)
class Unpaired:
    """For this prompt, `completion` is good (`label`) or bad: an example for KTO."""

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
    """For this prompt, `completion` is worth imitating: an example for SFT."""

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


Example = Pair | Unpaired | Demonstration


def example_id(
    kind: PairSource | Literal["unpaired", "demonstration"],
    sides: Sequence[Side],
    source: str,
    user_ids: Sequence[str],
) -> str:
    """The same for the same statement about the same answers, whoever else joins in.

    A correction is told from somebody else's correction of the same answer by its author.
    """
    author = list(user_ids) if source == "correction" else []
    named = "\n".join([kind, *(side.answer_id for side in sides), *author])
    return digest_bytes(named.encode())


def derived_id(example: Example) -> str:
    """The id that an example must have."""
    origin = example.origin
    if isinstance(example, Pair):
        return example_id(example.source, example.sides, example.source, origin.user_ids)
    kind: Literal["unpaired", "demonstration"] = (
        "unpaired" if isinstance(example, Unpaired) else "demonstration"
    )
    return example_id(kind, example.sides, example.source, origin.user_ids)


def policy_of(example: Example, base: str, incumbent: str | None) -> Policy:
    """Whether what the model wrote in an example was written by the adapter that is live now.

    A person's correction is nobody's policy and does not count; imported text is off-policy.
    """
    written = [side for side in example.sides if side.base != PERSON]
    same = all(side.base == base and side.adapter == incumbent for side in written)
    return "on" if written and same else "off"


def pair_from_dict(row: Mapping[str, Any]) -> Pair:
    """Inverse of `Pair.as_dict`."""
    return Pair(
        row["id"],
        messages_from_dicts(row["prompt"]),
        _side_of(row, "chosen"),
        _side_of(row, "rejected"),
        row["source"],
        _origin_of(row),
    )


def unpaired_from_dict(row: Mapping[str, Any]) -> Unpaired:
    """Inverse of `Unpaired.as_dict`."""
    return Unpaired(
        row["id"],
        messages_from_dicts(row["prompt"]),
        _side_of(row, "completion"),
        row["label"],
        row["source"],
        _origin_of(row),
    )


def demonstration_from_dict(row: Mapping[str, Any]) -> Demonstration:
    """Inverse of `Demonstration.as_dict`."""
    return Demonstration(
        row["id"],
        messages_from_dicts(row["prompt"]),
        _side_of(row, "completion"),
        row["source"],
        _origin_of(row),
    )


def _head(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "prompt": [message.as_dict() for message in example.prompt],
        "source": example.source,
        **asdict(example.origin),
    }


def _side(name: str, side: Side) -> dict[str, Any]:
    row = asdict(side)
    text = row.pop("text")
    return {name: [Message("assistant", text).as_dict()]} | {
        f"{name}_{key}": value for key, value in row.items()
    }


def _side_of(row: Mapping[str, Any], name: str) -> Side:
    (message,) = messages_from_dicts(row[name])
    return Side(
        message.content,
        **{key: row[f"{name}_{key}"] for key in Side.__dataclass_fields__ if key != "text"},
    )


def _origin_of(row: Mapping[str, Any]) -> Origin:
    return Origin(
        row["conversation_id"],
        row["template_hash"],
        tuple(row["event_ids"]),
        tuple(row["user_ids"]),
    )
