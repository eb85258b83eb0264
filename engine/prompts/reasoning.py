"""The split of a text into thought and answer, and the majority of several answers. Text alone.

Models write a thought in one of two forms: in a `<think>` block, as Qwen3 and the R1 distillates
always do, or before a line that starts with "Answer:", as the chain-of-thought mode asks. A stored
thought keeps its tags, so that it can be written again in its own form.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from engine.messages import Message, is_blank

OPEN, CLOSE = "<think>", "</think>"
_OPENING = re.compile(rf"\s*{OPEN}")
_LEFT_OPEN = re.compile(rf"{OPEN}\s*\Z")
_ANSWER_MARK = re.compile(
    r"(?im)^[ \t*#]*(?:final )?answer[ \t]*(?:\*\*[:：]|[:：]\*\*|[:：])[ \t]*"
)
_NUMBER = re.compile(
    r"(?<![\w.])(-?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.([0-9]+))?(?!\w|[.,][0-9])"
)
_END_PUNCTUATION = ".,;:!?。，；：！？… "


@dataclass(frozen=True, slots=True)
class Reasoned:
    """An answer and the thought that led to it ("" if there is none), as a person reads them."""

    thought: str
    answer: str
    in_block: bool = False  # the thought stood in a `<think>` block

    @property
    def stored_thought(self) -> str:
        """The thought as it is stored, with its `<think>` tags if it was written in them."""
        return f"{OPEN}\n{self.thought}\n{CLOSE}" if self.in_block else self.thought


def split_reasoning(
    text: str, *, finished: bool = True, answer_line: bool = False, given: int = 0
) -> Reasoned:
    """Split a model's text into thought and answer.

    `<think>` blocks at the beginning are the thought; one that is not closed holds all the rest.
    Tags further on belong to the answer. With `answer_line` (the prompt asked for it), a text
    without a thought in a block has its thought before a line that starts with "Answer:".

    While the text grows (not `finished`), the answer only grows, too: the beginning of a possible
    tag is held back, and with `answer_line` all text is thought until that line has come. A
    finished text without that line is all answer, since the model has answered without the form.

    The first `given` characters were not written by the model: they decide where the thought ends,
    but are in neither part.
    """
    thought, answer = _split_blocks(text, finished=finished, given=given)
    if thought or not answer_line:
        return Reasoned(thought, answer, in_block=bool(thought))
    if mark := _ANSWER_MARK.search(answer):
        return Reasoned(answer[: mark.start()].strip(), answer[mark.end() :].strip())
    return Reasoned("", answer.strip()) if finished else Reasoned(answer.strip(), "")


def final_answer(text: str) -> str:
    """The words after "Answer:", also after a think block; without such a line, the whole text."""
    return split_reasoning(split_reasoning(text).answer, answer_line=True).answer


def join_reasoning(thought: str, answer: str) -> str:
    """Join a stored thought and its answer as a model writes them; inverse of `split_reasoning`."""
    if not thought:
        return answer
    return f"{thought}\n\n{answer}" if _is_tagged(thought) else f"{thought}\nAnswer: {answer}"


def untagged(thought: str) -> str:
    """A stored thought as a person reads it."""
    bare = thought.removeprefix(OPEN).removesuffix(CLOSE).strip()
    return bare if _is_tagged(thought) else thought


def without_thoughts(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Remove the thoughts from the assistant's messages of a conversation.

    A message that consists of a thought alone stays as it is.
    """
    return tuple(
        replace(message, content=answer)
        if message.role == "assistant"
        and not is_blank(answer := split_reasoning(with_opening(message.content)).answer)
        else message
        for message in messages
    )


# For templates that open the think block at the end of the prompt


def opening_of(prompt: str) -> str:
    """The opened think block at the end of a rendered prompt; "" if there is none."""
    found = _LEFT_OPEN.search(prompt)
    return found[0] if found else ""


def after_opening(text: str, opening: str) -> str:
    """The part of an answer that a model writes after a prompt that ends with `opening`.

    An answer without a thought closes the block first.
    """
    whole = text if text.startswith(OPEN) else f"{OPEN}\n\n{CLOSE}\n\n{text}"
    return whole.removeprefix(opening)


def with_opening(text: str) -> str:
    """Add the `<think>` that a saved answer lacks because its prompt had written it.

    A `</think>` on a line of its own, with no `<think>` before it, ends such a thought.
    """
    head, close, rest = text.partition(CLOSE)
    alone = close and OPEN not in head and head.endswith("\n") and rest[:1] in ("", "\n", "\r")
    return f"{OPEN}\n{text}" if alone else text


def _is_tagged(thought: str) -> bool:
    return thought.startswith(OPEN) and thought.endswith(CLOSE)


def _split_blocks(text: str, *, finished: bool, given: int) -> tuple[str, str]:
    """The thoughts in the blocks at the beginning and the text after them, both without the first
    `given` characters."""
    thoughts: list[str] = []
    at = 0
    while block := _OPENING.match(text, at):
        inside, close, _ = text[block.end() :].partition(CLOSE)
        at = block.end() + len(inside) + len(close)
        inside = inside if close or finished else without_part_of(CLOSE, inside)
        blanks = len(inside) - len(inside.lstrip())
        thoughts.append(inside[max(blanks, given - block.end()) :].rstrip())
    rest = text[at:].lstrip() if at else text
    if not finished and OPEN.startswith(rest.lstrip()):
        rest = ""  # it may become another block
    rest = rest[max(0, given - (len(text) - len(rest))) :]
    return "\n\n".join(filter(None, thoughts)), rest


def without_part_of(tag: str, text: str) -> str:
    """Remove the beginning of a tag, but not a whole tag, from the end of a text."""
    parts = (tag[:length] for length in range(len(tag) - 1, 0, -1))
    return text.removesuffix(next(filter(text.endswith, parts), ""))


@dataclass(frozen=True, slots=True)
class MajorityVote:
    """The answer on which most samples agree, as its first sample wrote it."""

    text: str
    votes: int
    total: int
    first: int = field(default=0, compare=False)  # the number of that sample
    # Each answer as its first sample wrote it, with its votes: the most frequent first
    tally: tuple[tuple[str, int], ...] = field(default=(), compare=False)


def majority(answers: Sequence[str]) -> MajorityVote:
    """The most frequent of one or more answers: self-consistency (Wang et al. 2022, 2).

    Answers agree when they differ only in case, in blanks, in punctuation at the end, or in how
    their last number is written: "It is 1,000." and "it is 1000.0" agree, "$5" and "5" do not.
    Ties go to the answer seen first. A blank answer wins only when all are blank.
    """
    if not answers:
        raise ValueError("there is no answer to vote on")
    keys = [_vote_key(answer) for answer in answers]
    counts = Counter(key for key in keys if key) or Counter(keys)
    ranked = [(keys.index(key), votes) for key, votes in counts.most_common()]
    tally = tuple((answers[at].strip(), votes) for at, votes in ranked)
    (text, votes), (first, _) = tally[0], ranked[0]  # of equals, the one counted first
    return MajorityVote(text, votes, len(answers), first, tally)


def _vote_key(answer: str) -> str:
    """The normal form of an answer; answers that agree have the same."""
    text = " ".join(answer.casefold().split())
    text = text.rstrip(_END_PUNCTUATION) or text  # "!" is an answer, too
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return text
    last = numbers[-1]
    return text[: last.start()] + _plain_number(*last.groups(default="")) + text[last.end() :]


def _plain_number(sign: str, whole: str, fraction: str) -> str:
    """A number without separators and redundant zeros, exact for any number of digits."""
    whole = whole.replace(",", "").lstrip("0") or "0"
    fraction = fraction.rstrip("0")
    number = f"{whole}.{fraction}" if fraction else whole
    return number if number == "0" else sign + number
