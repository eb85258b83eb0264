"""Writes alternatives of bad answers while nobody waits for the engine.

For an answer with a thumb down (or few words of correction) the live release answers the same
prompt several times; the two answers between which it is least sure wait for a person to compare
them. All of it gives way: whoever asks something cancels it before their own answer is queued, and
what was half written is dropped and written another time. Nothing is stored before it is whole, so
that a process that dies leaves nothing behind.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from app.answering.comparing import difference
from app.answering.running_answers import CancellationToken, RunningAnswers
from engine.adapters.slots import AdapterSlots
from engine.errors import BurnishError, InvalidInput, PromptTooLong, UnknownId
from engine.messages import Message, is_blank, tools_of
from engine.prompts.modes import has_answer_line
from engine.prompts.reasoning import split_reasoning
from engine.request import (
    Engine,
    Finished,
    GenerationRequest,
    SamplingParams,
    ScoreRequest,
    Stream,
    collect,
)
from feedback_store.ai_feedback.alternatives import (
    Alternative,
    Alternatives,
    BadAnswer,
    ChosenCouple,
)
from feedback_store.ai_feedback.comparison_queue import ComparisonQueue
from feedback_store.storage.store import FeedbackStore
from tuning.uncertainty import implicit_reward, least_sure

IDLE_SECONDS = 60.0  # without an answer, before the engine counts as idle
MOST_WAITING = 200  # comparisons; two weeks of ten minutes are no use to anybody
LOOKED_AT = 50  # bad answers at a time
ALTERNATIVES_TEMPERATURE = 0.7  # below, several answers would be nearly one


class AlternativeWriter:
    """Writes alternatives with one engine. `busy` returns whether other work has the engine."""

    def __init__(
        self,
        engine: Engine,
        slots: AdapterSlots,
        running: RunningAnswers,
        store: FeedbackStore,
        alternatives: Alternatives,
        queue: ComparisonQueue,
        *,
        sampling: SamplingParams,
        count: int,
        busy: Callable[[], bool],
    ) -> None:
        """`count` is the number of alternatives for each bad answer; below 2, none are written."""
        self._engine = engine
        self._slots = slots
        self._running = running
        self._store = store
        self._alternatives = alternatives
        self._queue = queue
        self._sampling = replace(
            sampling, temperature=max(sampling.temperature, ALTERNATIVES_TEMPERATURE), logprobs=0
        )
        self._count = count
        self._busy = busy
        self._impossible: set[str] = set()  # their prompt no longer fits, or offers tools

    def write_while_idle(self) -> int:
        """Write as long as nobody asks anything; returns for how many answers."""
        if self._count < 2:
            return 0
        return self._write_while(
            lambda: (
                self._running.idle_seconds >= IDLE_SECONDS
                and not self._busy()
                and self._queue.counts()["waiting"] < MOST_WAITING
            )
        )

    def write(self, most: int) -> int:
        """Write for at most so many answers now; returns for how many. Raises `InvalidInput` where
        the setting asks for no alternatives."""
        if self._count < 2:
            raise InvalidInput("the setting alternatives is below 2: there is nothing to compare")
        left = iter(range(most))
        return self._write_while(lambda: next(left, None) is not None)

    def _write_while(self, may_go_on: Callable[[], bool]) -> int:
        written = 0
        while may_go_on() and self.write_next():
            written += 1
        return written

    def write_next(self) -> bool:
        """Write the alternatives of one bad answer; False if there is none or somebody came."""
        wanted = self._alternatives.wanted(LOOKED_AT)
        bad = next((each for each in wanted if each.id not in self._impossible), None)
        if bad is None:
            return False
        with self._running.background() as token:
            try:
                return self._write(bad, token)
            except UnknownId:  # erased meanwhile
                return True
            except PromptTooLong:  # for the context of today's model
                self._impossible.add(bad.id)
                return True
            except BurnishError:  # the engine is full or closed; it is tried again in a minute
                return False

    def _write(self, bad: BadAnswer, token: CancellationToken) -> bool:
        _, prompt = self._store.shown_prompt(bad.id, bad.user_id)
        if tools_of(prompt):  # nothing is called while nobody asks
            self._impossible.add(bad.id)
            return True
        with self._slots.pin_live() as adapter:
            if token.cancelled:
                return False
            answers = self._draw(prompt, bad, adapter, token)
            rewards = self._rewards(prompt, answers, adapter, token)
        if rewards is None:
            return False
        alternatives = [self._alternative(seed, answer, bad) for seed, answer in answers]
        kept = [i for i, each in enumerate(alternatives) if not is_blank(each.text)]
        couple = least_sure(
            [rewards[i] for i in kept], [alternatives[i].text for i in kept], difference
        )
        self._alternatives.store(
            bad,
            [alternatives[i] for i in kept] or alternatives[:1],
            couple and ChosenCouple(*couple),
            base_digest=self._engine.base_digest,
            adapter_digest=adapter,
            sampling=replace(self._sampling, logprobs=None).as_dict(),
        )
        return True

    def _draw(
        self,
        prompt: Sequence[Message],
        bad: BadAnswer,
        adapter: str | None,
        token: CancellationToken,
    ) -> list[tuple[int, Finished]]:
        """Draw the answers together, so that they share the prompt's computation."""
        seeds = [secrets.randbits(31) for _ in range(self._count)]
        requests = [
            GenerationRequest(
                tuple(prompt), replace(self._sampling, seed=seed), adapter, thinking=bad.thinking
            )
            for seed in seeds
        ]
        streams = self._engine.submit_many(requests)
        token.attach(_Together(streams))
        return [(seed, collect(each)) for seed, each in zip(seeds, streams, strict=True)]

    def _rewards(
        self,
        prompt: Sequence[Message],
        answers: Sequence[tuple[int, Finished]],
        adapter: str | None,
        token: CancellationToken,
    ) -> list[float] | None:
        """The implicit reward of each answer, 0 for the base model's; None if somebody came.

        One score at a time, so that whoever comes waits for no more than that.
        """
        rewards = []
        for _, answer in answers:
            scores = [0.0, 0.0]
            for i, weights in enumerate((adapter, None)):
                if token.cancelled:
                    return None
                if adapter is not None and answer.text:
                    request = ScoreRequest(
                        tuple(prompt), answer.text, weights, complete=answer.reason == "stop"
                    )
                    scores[i] = self._engine.score([request])[0].total
            rewards.append(implicit_reward(*scores))
        return None if token.cancelled else rewards

    def _alternative(self, seed: int, answer: Finished, bad: BadAnswer) -> Alternative:
        reasoned = split_reasoning(
            answer.text, finished=True, answer_line=has_answer_line(bad.mode)
        )
        drawn = [each.logprob for each in answer.logprobs]
        return Alternative(
            reasoned.answer,
            reasoned.stored_thought,
            answer.reason == "stop",
            seed,
            sum(drawn) / max(1, len(drawn)),
            answer.prompt_tokens,
            answer.completion_tokens,
        )


class _Together:
    """Several streams that are cancelled together."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams

    def cancel(self) -> None:
        """Ask for the end of each."""
        for stream in self._streams:
            stream.cancel()
