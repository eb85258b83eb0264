"""Fills a home as a month of use leaves it, for pictures of the pages and for looking at them.

Everything in it is made up: seven people, their conversations, votes, comments and corrections,
five releases of which one is live and one on trial, three rounds of the loop, comparisons and
drafts that wait, and a burst of votes. The adapters are random and small. Draws are seeded, so that
two homes differ in their times alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from app.workspace import Workspace
from benchmarks.adapters import publish_adapter
from deploy.releases.events import Registered
from deploy.rounds.round import ENDED
from deploy.rounds.store import RoundStore
from engine.prompts.modes import make_template
from feedback_store.accounts.person import AccountRole
from feedback_store.ai_feedback.alternatives import Alternative, ChosenCouple
from feedback_store.ai_feedback.drafts import Draft

DAY, HOUR = 86_400.0, 3_600.0
PLAIN = make_template("plain", (), "You are a helpful assistant.")
PEOPLE: dict[str, AccountRole] = {
    "ann": "operator",
    "bob": "user",
    "chen": "reviewer",
    "dora": "user",
    "emil": "user",
    "fatima": "user",
    "gus": "user",
}
PASSWORD = "a long made-up password"
# Questions with their answers and how somebody corrects them; {} is one of the things in turn
EXCHANGES = (
    (
        "Why is the tide so high in {}?",
        "The bay of {} is a funnel: the water of the rising tide is pressed together, and it swings"
        " there at nearly the same pace as the moon pulls.",
        "The bay narrows, so the rising tide piles up.",
        ("Saint-Malo", "Bristol", "Fundy", "Anchorage", "Derby", "Penang", "Cuxhaven"),
    ),
    (
        "How long do I boil {}?",
        "Count from the moment the water boils. For {} that is a matter of size and taste; try a"
        " small piece, and take the pot off the stove when it is nearly done.",
        "Ten minutes from the boil, then try a piece.",
        ("an egg", "new potatoes", "rice", "lentils", "a beetroot", "sweetcorn", "chestnuts"),
    ),
    (
        "Write a friendly e-mail that moves the {} to Thursday.",
        "Hello all,\n\nsomething has come up on Wednesday. Can we have the {} on Thursday?\n\nAnn",
        "Hello, can we do Thursday instead? Wednesday no longer works. Ann",
        ("meeting", "lesson", "dinner", "interview", "visit", "choir practice", "tasting"),
    ),
    (
        "How do I {} in git?",
        "Look at `git log` first. To {}, read the section of the manual, then use the command with"
        " `--dry-run` where it has one.",
        "Use `git restore`, `git reset` or `git switch`; `git status` says which one fits.",
        ("undo a commit", "rename a branch", "split a commit", "drop a file", "find a culprit"),
    ),
    (
        "Sum up {} in one sentence.",
        "There are several parts to {}: what goes in, what is changed by it, and what comes out at"
        " the end, each of which depends on the others.",
        "It goes round: each step makes what the next one needs.",
        ("the water cycle", "photosynthesis", "inflation", "a relay race", "compost"),
    ),
    (
        "Which is the capital of {}?",
        "The largest city of {} is not always its capital; I would look it up in an atlas.",
        "Look at the country's page: the capital stands in its first line.",
        ("Australia", "Canada", "Türkiye", "Brazil", "Morocco", "Kazakhstan", "Myanmar", "Bolivia"),
    ),
    (
        "Give me five ideas for a rainy {} with children.",
        "1. Bake bread\n2. Build a den\n3. Write a newspaper of the {}\n4. Charades\n5. A film",
        "Bread, a den, a newspaper, charades, a film.",
        ("Sunday", "afternoon", "holiday", "evening", "week"),
    ),
)
COMMENTS = ("I asked for one sentence.", "This is wrong.", "No need to repeat my question.")
BAD_REASONS = ("wrong_facts", "too_long", "did_not_follow", "bad_style", "too_short")
# From which day to which which release answered, and how often it was liked
ERAS = ((None, 28, 21, 0.56), (0, 20, 14, 0.64), (1, 13, 5, 0.73), (3, 4, 0, 0.8))
# Of each release: gain, its ends, the release it is compared with; by number
GAINS = ((6, 1, 11, None), (9, 3, 15, 0), (-2, -8, 4, 1), (5, 1, 9, 1), (6, 2, 11, 3))
REFUSED = "refused: the candidate gives longer answers (length +0.38, at least 0.2)"
BURST_VOTES = 28
CANARY_SHARE, CANARY_CONVERSATIONS = 0.25, 90


def fill(workspace: Workspace) -> None:
    """Fill an empty home; nothing may run on it meanwhile, since time is set back for it."""
    _Filling(workspace, random.Random(7)).run()


class _Filling:
    """One run of the filling, `now` being the end of the month."""

    def __init__(self, workspace: Workspace, draw: random.Random) -> None:
        self._workspace = workspace
        self._draw = draw
        self._now = time.time()
        self._asked = 0
        self._ids: dict[str, str] = {}
        self._bundles = [
            publish_adapter(workspace.home.bundles, workspace.base, 2, seed)
            for seed in range(len(GAINS))
        ]

    def run(self) -> None:
        """Fill everything, in the order in which it happened."""
        self._join()
        for release, first, last, liked in ERAS:
            if release is not None:
                with self._at(first * DAY + HOUR):
                    self._release(release, promote=True)
            for day in range(first, last - 1, -1):
                for _ in range(self._draw.randint(5, 12)):
                    with self._at(day * DAY + self._draw.uniform(0.1, 0.9) * HOUR):
                        self._exchange(release, liked)
            if release == 1:
                with self._at(6 * DAY):
                    self._release(2, promote=False)
        self._try_out(4)
        self._burst("gus")
        self._let_wait()

    def _join(self) -> None:
        accounts = self._workspace.accounts
        with self._at(29 * DAY):
            for name, role in PEOPLE.items():
                self._ids[name] = accounts.join(accounts.invite(role), name, PASSWORD).id

    def _release(self, number: int, *, promote: bool) -> None:
        """Make a release and judge it; a promoted one was made by a round of the loop."""
        registry, bundle = self._workspace.registry, self._bundles[number]
        gain, low, high, against = GAINS[number]
        report = _report(gain, low, high, None if against is None else self._bundles[against])
        sources = {
            "pairs/comparison": 24 + 9 * number,
            "pairs/correction": 8 + 2 * number,
            "demonstrations/correction": 12 + number,
            "unpaired/vote": 40 + 11 * number,
        }
        made = Registered(bundle=bundle, sources=sources, people=len(PEOPLE) - 1, seconds=1310.0)
        registry.register(made)
        registry.add(bundle, report)
        if promote:
            registry.promote(bundle, registry.live(), note=str(report["reason"]), actor="loop")
            self._round(str(report["reason"]))

    def _round(self, reason: str) -> None:
        rounds = RoundStore(self._workspace.database, now=lambda: time.time())
        with rounds.lease.held():
            begun = rounds.begin({"cause": "evidence", "recipe": {}})
            rounds.record(begun, ENDED, {"outcome": "promoted", "reason": reason})
            rounds.record(begun, "report", {})

    def _exchange(
        self, release: int | None, liked: float, who: str = "", conversation: str = ""
    ) -> None:
        """Ask a question, answer it, and most often say something of the answer."""
        user = self._ids[who or self._draw.choice(list(PEOPLE)[:6])]
        question, text, better = self._texts()
        answer = self._answer(release, user, question, text, conversation)
        store = self._workspace.store
        if self._draw.random() < liked:
            store.vote(answer, user, 1)
            return
        reasons = self._draw.sample(BAD_REASONS, self._draw.randint(0, 2))
        comment = self._draw.choice((*COMMENTS, "", "", ""))
        store.vote(answer, user, -1, reasons=reasons, comment=comment)
        if self._draw.random() < 0.5:
            store.correct(answer, user, better)

    def _texts(self) -> tuple[str, str, str]:
        """The next question, its answer and a better one."""
        question, text, better, things = EXCHANGES[self._asked % len(EXCHANGES)]
        thing = things[self._asked // len(EXCHANGES) % len(things)]
        return question.format(thing), text.format(thing), better

    def _answer(
        self, release: int | None, user: str, question: str, text: str, conversation: str
    ) -> str:
        self._asked += 1
        store = self._workspace.store
        turn = store.add_turn(
            user_id=user,
            question=question,
            template=PLAIN,
            conversation_id=conversation or f"conversation-{self._asked:04}",
        )
        answer = store.begin_answer(
            turn.id,
            base_digest=self._workspace.base.digest,
            adapter_digest=None if release is None else self._bundles[release],
            sampling={},
            seed=self._asked,
        )
        first, tokens = time.time() + self._draw.uniform(0.1, 0.4), self._draw.randint(60, 140)
        with patch("time.time", lambda: first + tokens / self._draw.uniform(30, 45)):
            store.finish_answer(
                answer,
                status="done",
                text=text,
                complete=True,
                first_token_at=first,
                prompt_tokens=40,
                completion_tokens=tokens,
            )
        return answer

    def _try_out(self, number: int) -> None:
        """Start a canary of a release, and let people judge both arms of it."""
        with self._at(2 * DAY):
            self._release(number, promote=False)
            canary = self._workspace.canaries.start_by(
                self._ids["ann"], self._bundles[number], share=CANARY_SHARE
            )
        for index in range(CANARY_CONVERSATIONS):
            conversation = f"conversation-on-trial-{index}"
            tried = canary.plan.arm_of(conversation) == "candidate"
            with self._at(2 * DAY - (index + 1) * HOUR / 2):
                self._exchange(number if tried else 3, 0.8 if tried else 0.76, "", conversation)

    def _burst(self, who: str) -> None:
        """Let a person vote faster than anybody reads."""
        user, answers = self._ids[who], []
        with self._at(1.5 * HOUR):
            for _ in range(BURST_VOTES):
                question, text, _ = self._texts()
                answers.append(self._answer(3, user, question, text, ""))
        for index, answer in enumerate(answers):
            with self._at(HOUR - index):
                self._workspace.store.vote(answer, user, 1)

    def _let_wait(self) -> None:
        """Leave comparisons and drafts for somebody to decide about."""
        alternatives = self._workspace.alternatives
        for bad in alternatives.wanted(3):
            texts = ("It depends on what you have at hand.", "Let me ask back first: for whom?")
            alternatives.store(
                bad,
                [Alternative(text, "", True, 0, -20.0, 40, 16) for text in texts],
                ChosenCouple(0, 1, 0.5),
                base_digest=self._workspace.base.digest,
                adapter_digest=None,
                sampling={},
            )
        self._workspace.drafts.add(_drafts())

    @contextmanager
    def _at(self, seconds_ago: float) -> Iterator[None]:
        """Let it be so many seconds before the end of the month."""
        with patch("time.time", lambda: self._now - seconds_ago):
            yield


def _report(gain: float, low: float, high: float, incumbent: str | None) -> dict[str, object]:
    """Return a gate's report; gains are in points."""
    shares = {"estimate": gain / 100, "low": low / 100, "high": high / 100}
    is_better = low > 0
    ends = f"gain {gain / 100:+.2f} [{low / 100:+.2f}, {high / 100:+.2f}]"
    return {
        "verdict": "better" if is_better else "not better",
        "reason": f"{ends} lies above +0.00" if is_better else REFUSED,
        "pairs": 42,
        "gain": shares,
        "gain_on_base": {end: share + 0.08 for end, share in shares.items()},
        "incumbent_accuracy": 0.61,
        "candidate_accuracy": 0.61 + gain / 100,
        "incumbent": incumbent,
    }


def _drafts() -> Sequence[Draft]:
    passage = {
        "text": "The library is open from ten to six, on Thursdays until eight.",
        "source": "house-rules.md",
        "heading": "Opening hours",
    }
    question = "Until when is the library open on Thursdays?"
    return [Draft("house", passage, question, "Until eight in the evening.", "embedded")]
