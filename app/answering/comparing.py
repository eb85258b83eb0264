"""Blind comparisons: a person chooses between two answers to one question.

A choice between the live release and a candidate, in a canary or waiting for promotion, is the
best evidence that a click can give; without a candidate both answers come from the live release.
A comparison is made when a person asks for one, and is offered at random; where two alternatives of
an earlier answer wait (`app.learning.alternatives`), they are offered instead. This module knows
nothing of pages.
"""

from __future__ import annotations

import random
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import tzinfo
from statistics import median

from app.answering.answering import LIVE, RunningAnswer
from app.answering.conversation import Chat
from engine.prompts.terms import tokens
from engine.request import SamplingParams

# About half of the sampled answers, those whose pair differs most, lead to an offer
DRAWN_PER_OFFER = 2
REMEMBERED_DIFFERENCES = 50
REMEMBERED_PEOPLE = 10_000


class Comparisons:
    """Generates second answers and decides when to offer a comparison.

    `other_release` returns the candidate that a person's answer is compared with. It returns None
    where there is none, and where the candidate wrote that answer: then the live release writes the
    second one. `rate` is the share of answers after which a comparison is offered; `draw` returns
    random numbers from [0, 1).
    """

    def __init__(
        self,
        chat: Chat,
        other_release: Callable[[str, str], str | None],
        rate: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._chat = chat
        self._other_release = other_release
        self._rate = rate
        self._draw = draw
        self._offered: OrderedDict[str, None] = OrderedDict()  # people just offered one
        self._differences: deque[float] = deque(maxlen=REMEMBERED_DIFFERENCES)
        self._lock = threading.Lock()  # guards the two above

    def second_answer(
        self,
        user_id: str,
        answer_id: str,
        *,
        sampling: SamplingParams | None = None,
        zone: tzinfo | None = None,
    ) -> RunningAnswer:
        """Start another answer to the turn of `answer_id`, which stays the one that is shown.

        Raises the errors of `Chat.regenerate`.
        """
        return self._chat.regenerate(
            user_id,
            answer_id,
            to_compare=True,
            adapter=self._other_release(user_id, answer_id) or LIVE,
            sampling=sampling,
            zone=zone,
        )

    def is_due(self, user_id: str) -> bool:
        """Decide at random whether to offer a comparison; never twice in a row to one person."""
        with self._lock:
            if user_id in self._offered:
                del self._offered[user_id]
                return False
        return self._draw() < DRAWN_PER_OFFER * self._rate

    def is_offered(self, user_id: str, first: str, second: str) -> bool:
        """Return whether two answers differ at least as much as the median of recent pairs."""
        different = difference(first, second)
        with self._lock:
            self._differences.append(different)
            offered = different > 0 and different >= median(self._differences)
            if offered:
                self._remember(user_id)
        return offered

    def offers_waiting(self, user_id: str) -> bool:
        """Return whether to offer a comparison that waits, of which every second due offer is one.

        It was chosen by its answers already, so it is drawn where a second answer would have to
        differ enough: both kinds of offers are equally frequent.
        """
        if self._draw() * DRAWN_PER_OFFER >= 1:
            return False
        with self._lock:
            self._remember(user_id)
        return True

    def _remember(self, user_id: str) -> None:
        self._offered[user_id] = None
        while len(self._offered) > REMEMBERED_PEOPLE:
            self._offered.popitem(last=False)


def difference(first: str, second: str) -> float:
    """Return the Jaccard distance of two texts' sets of words, from 0 to 1."""
    one, other = set(tokens(first)), set(tokens(second))
    every = one | other
    return len(one ^ other) / len(every) if every else 0.0
