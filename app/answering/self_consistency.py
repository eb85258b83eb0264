"""Self-consistency (Wang et al. 2022): a majority vote over the answers of several chains.

The chains are sampled together, as rows of one batch that share their prompt, and read as one
stream, so that they are stopped, pinned and stored like any other answer. Knows streams; knows
nothing of conversations.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from queue import SimpleQueue

from engine.errors import InvalidInput
from engine.excerpts import cut_at_word
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

MAX_LABEL_CHARS = 80  # of an answer in the list of votes


def chain_count(mode: str, samples: int, sampling: SamplingParams) -> int:
    """Return how many chains to sample; raises `InvalidInput` if all would be identical."""
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
    """Several streams as one: the first stream's text as it grows, then one end for all.

    That end belongs to the first chain with the winning answer; its token counts cover all chains.
    A chain that was stopped, failed or was cut off within its thought has no vote. `votes` is set
    at the end and has each answer with its number of votes.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams
        self._ends: dict[int, Finished | Failed] = {}
        self._events = self._read()
        self.votes: tuple[tuple[str, int], ...] = ()

    def __iter__(self) -> Iterator[StreamEvent]:
        return self._events

    @property
    def prompt_tokens(self) -> int:
        """See `Stream`."""
        return self._streams[0].prompt_tokens

    @property
    def ended(self) -> int:
        """The number of chains that have ended."""
        return len(self._ends)

    def cancel(self) -> None:
        """End every chain within a step."""
        for stream in self._streams:
            stream.cancel()

    def _read(self) -> Iterator[StreamEvent]:
        for number, event in _merged(self._streams):
            if isinstance(event, Finished | Failed):
                self._ends[number] = event
                yield TextDelta("")  # makes the reader look at `ended`
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
    """Return the answer of a chain; "" if it was cut off before its answer."""
    answer = final_answer(end.text)
    return "" if end.reason == "length" and answer == end.text.strip() else answer


def _label(answer: str) -> str:
    """Shorten an answer to one line, without its final full stop."""
    line = " ".join(answer.split())
    return cut_at_word(line.rstrip(".。") or line, MAX_LABEL_CHARS)


def _merged(streams: Sequence[Stream]) -> Iterator[tuple[int, StreamEvent]]:
    """Yield the events of several streams as they come, each with its stream's index."""
    events: SimpleQueue[tuple[int, StreamEvent]] = SimpleQueue()

    def read(number: int, stream: Stream) -> None:
        for event in stream:
            events.put((number, event))

    for pair in enumerate(streams):
        threading.Thread(target=read, args=pair, name="burnish-chain", daemon=True).start()
    running = len(streams)
    while running:
        number, event = events.get()
        running -= isinstance(event, Finished | Failed)
        yield number, event
