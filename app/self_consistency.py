"""Self-consistency (Wang et al. 2022): several chains of thought, and the answer most lead to.

The chains are drawn together, as rows of one batch that share their prompt, and read as one
stream, so that stopping, pinning and storing them is what it is for any other answer. Knows
streams; knows nothing of conversations.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from queue import SimpleQueue

from engine.errors import InvalidInput
from engine.prompts.modes import SELF_CONSISTENCY
from engine.prompts.reasoning import final_answer, majority
from engine.request import (
    SEEDS,
    Engine,
    Failed,
    Finished,
    GenerationRequest,
    SamplingParams,
    Stream,
    StreamEvent,
    TextDelta,
)

MAX_LABEL_CHARS = 80  # of an answer in the tally


def chain_count(mode: str, samples: int, sampling: SamplingParams) -> int:
    """How many chains of thought an answer takes; raises `InvalidInput` where all would be one."""
    if mode != SELF_CONSISTENCY:
        return 1
    if sampling.temperature == 0:
        raise InvalidInput(
            "self-consistency compares answers that may differ; choose a temperature above 0"
        )
    return samples


def draw_chains(engine: Engine, request: GenerationRequest, count: int) -> Chains:
    """Queue `count` chains, all or none; their seeds follow the request's."""
    sampling = request.sampling
    seeds = ((sampling.seed + number) % SEEDS for number in range(count))
    requests = [replace(request, sampling=replace(sampling, seed=seed)) for seed in seeds]
    return Chains(engine.submit_many(requests))


class Chains:
    """Several streams as one: the first one's text as it grows, then one end for all.

    It is the end of the first chain that gave the winning answer, with the tokens of all. A chain
    that was stopped or failed has no vote, nor has one that was cut off in its thought. `ended`
    says how many have ended; `votes`, known at the end, has each answer with its votes.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams
        self._ends: dict[int, Finished | Failed] = {}
        self._events = self._read()
        self.votes: tuple[tuple[str, int], ...] = ()

    def __iter__(self) -> Iterator[StreamEvent]:
        return self._events

    @property
    def ended(self) -> int:
        """How many chains have ended."""
        return len(self._ends)

    def cancel(self) -> None:
        """End every chain within a step."""
        for stream in self._streams:
            stream.cancel()

    def _read(self) -> Iterator[StreamEvent]:
        for number, event in _merged(self._streams):
            if not isinstance(event, TextDelta):
                self._ends[number] = event
                yield TextDelta("")  # so that the reader looks at `ended`
            elif number == 0:
                yield event
        yield self._decide()

    def _decide(self) -> Finished | Failed:
        ends = [self._ends[number] for number in range(len(self._streams))]
        finished = [end for end in ends if isinstance(end, Finished)]
        voters = [end for end in finished if end.reason != "cancelled"]
        if not voters:
            return ends[0]
        vote = majority([_answer_of(end) for end in voters])
        if vote.text:
            self.votes = tuple((_label(answer), votes) for answer, votes in vote.tally)
        tokens = sum(end.completion_tokens for end in finished)
        return replace(voters[vote.first], completion_tokens=tokens)


def _answer_of(end: Finished) -> str:
    """The answer that a chain led to; "" where it was cut off before it gave one."""
    answer = final_answer(end.text)
    return "" if end.reason == "length" and answer == end.text.strip() else answer


def _label(answer: str) -> str:
    """An answer in one short line, without the point at its end."""
    line = " ".join(answer.split())
    line = line.rstrip(".。") or line
    return line if len(line) <= MAX_LABEL_CHARS else f"{line[: MAX_LABEL_CHARS - 1]}…"


def _merged(streams: Sequence[Stream]) -> Iterator[tuple[int, StreamEvent]]:
    """The events of several streams as they come, each with its stream's number."""
    events: SimpleQueue[tuple[int, StreamEvent]] = SimpleQueue()

    def read(number: int, stream: Stream) -> None:
        for event in stream:
            events.put((number, event))

    for pair in enumerate(streams):
        threading.Thread(target=read, args=pair, name="burnish-chain", daemon=True).start()
    running = len(streams)
    while running:
        number, event = events.get()
        running -= not isinstance(event, TextDelta)
        yield number, event
