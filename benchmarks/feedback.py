"""The feedback store at scale: `python -m benchmarks.feedback --json`.

Measures, with a million turns, 300,000 votes and 20,000 users on SQLite, the cost of building the
examples, updating them, listing them and voting. The last line of stdout is one JSON document,
whose `figures` hold the goal and the result of each. The texts are random words.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select

from engine.prompts.modes import make_template
from feedback_store.curation.decisions import Curation
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.evidence import EvidenceReader
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.training_set import TrainingSet

TURNS_A_CONVERSATION = 5
REGENERATED = 0.1  # the share of turns with a second answer
SHARED = 0.02  # the share of judged answers that a second user judges
WORDS_AN_ANSWER = 80
WRITERS, VOTES_A_WRITER = 40, 50
CHUNK = 20_000


def main() -> None:
    """Fill a store and run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the document on one line")
    parser.add_argument("--turns", type=int, default=1_000_000)
    parser.add_argument("--votes", type=int, default=300_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(_rebuild(arguments.child)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "burnish.db"
        begun = time.perf_counter()
        answers = fill(path, arguments.turns, arguments.votes, arguments.users)
        _say(f"filled in {time.perf_counter() - begun:.0f} s, {path.stat().st_size / 1e6:.0f} MB")
        figures = {**_rebuild_in_child(path), **_console(path), **_voting(path, answers)}
    document = {
        "figures": figures,
        "turns": arguments.turns,
        "votes": arguments.votes,
        "users": arguments.users,
    }
    print(json.dumps(document) if arguments.json else json.dumps(document, indent=2))


# The store


def fill(path: Path, turns: int, votes: int, users: int) -> list[tuple[str, str]]:
    """Fill a store; returns some answers, each with its user."""
    rng = random.Random(0)
    database = Database(f"sqlite:///{path}")
    FeedbackStore(database)
    template = make_template("plain", ())
    known = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9)))
        for _ in range(5_000)
    ]
    words = rng.choices(known, k=500_000)  # one long text; all others are slices of it
    rows = Rows(rng, words, users, template.hash, votes / turns)
    with database.write() as connection:
        connection.execute(
            insert(t.templates).values(hash=template.hash, definition=template.as_dict())
        )
        for begin in range(0, turns, CHUNK):
            for table, values in rows.of(begin, min(turns, begin + CHUNK)).items():
                if values:
                    connection.execute(insert(table), values)
    database.close()
    return rows.some_answers


class Rows:
    """Generates the rows of conversations and votes."""

    def __init__(
        self, rng: random.Random, words: list[str], users: int, template: str, vote_rate: float
    ) -> None:
        self._rng = rng
        self._words = words
        self._users = users
        self._template = template
        # A turn with two answers gets two votes where it gets any
        self._vote_rate = vote_rate / (1 + REGENERATED) / (1 + SHARED)
        self.some_answers: list[tuple[str, str]] = []

    def of(self, begin: int, end: int) -> dict[Any, list[dict[str, Any]]]:
        """Return the rows of the turns begin..end, by table."""
        rows: dict[Any, list[dict[str, Any]]] = {t.turns: [], t.answers: [], t.events: []}
        parent: str | None = None
        for number in range(begin, end):
            place = number % TURNS_A_CONVERSATION
            conversation = number // TURNS_A_CONVERSATION
            user = f"user{conversation % self._users}"
            rows[t.turns].append(
                {
                    "id": f"t{number}",
                    "conversation_id": f"c{conversation}",
                    "parent_answer_id": parent if place else None,
                    "user_id": user,
                    "question": self._text(12),
                    "mode": "plain",
                    "template_hash": self._template,
                    "prompt": None,
                    "created_at": float(number),
                }
            )
            count = 2 if self._rng.random() < REGENERATED else 1
            voted = self._rng.random() < self._vote_rate
            for which in range(count):
                parent = f"a{number}-{which}"
                rows[t.answers].append(self._answer(parent, f"t{number}", float(number)))
                if voted:
                    rows[t.events].append(self._vote(parent, user, float(number)))
                if voted and self._rng.random() < SHARED:
                    other = f"user{self._rng.randrange(self._users)}"
                    rows[t.events].append(self._vote(parent, other, float(number)))
            if len(self.some_answers) < 1_000:
                self.some_answers.append((f"a{number}-0", user))
        return rows

    def _answer(self, answer_id: str, turn_id: str, at: float) -> dict[str, Any]:
        return {
            "id": answer_id,
            "turn_id": turn_id,
            "status": "done",
            "text": self._text(WORDS_AN_ANSWER),
            "thought": "",
            "complete": 1,
            "base_digest": "sha256:base",
            "adapter_digest": None,
            "sampling": {},
            "seed": 0,
            "created_at": at,
            "finished_at": at,
        }

    def _vote(self, answer_id: str, user: str, at: float) -> dict[str, Any]:
        return {
            "idempotency_key": f"{answer_id}-{self._rng.random()}",
            "kind": "vote",
            "answer_id": answer_id,
            "user_id": user,
            "vote": self._rng.choice((-1, 1)),
            "created_at": at,
        }

    def _text(self, count: int) -> str:
        begin = self._rng.randrange(len(self._words) - count)
        return " ".join(self._words[begin : begin + count])


# Measurements


def _rebuild_in_child(path: Path) -> dict[str, Any]:
    """Rebuild in a child process, so that its memory is that of the examples alone."""
    command = [sys.executable, "-m", "benchmarks.feedback", "--child", str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _rebuild(path: Path) -> dict[str, Any]:
    """Build all examples from scratch, then update them after 1,000 new votes."""
    database = Database(f"sqlite:///{path}")
    training_set = TrainingSet(EvidenceReader(database), Curation(database))
    begun = time.perf_counter()
    counts = training_set.refresh(reestimate=True).counts
    seconds = time.perf_counter() - begun
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    incremental = statistics.median(_after_new_votes(database, training_set) for _ in range(3))
    return {
        "rebuild_seconds": _figure("< 60", seconds, seconds < 60, **counts),
        "rebuild_megabytes": _figure("< 500", megabytes, megabytes < 500),
        "incremental_seconds": _figure("< 1 after 1,000 new votes", incremental, incremental < 1),
    }


def _after_new_votes(database: Database, training_set: TrainingSet) -> float:
    store = FeedbackStore(database)
    rng = random.Random(time.time_ns())
    with database.read() as connection:
        count = connection.execute(select(func.count()).select_from(t.turns)).scalar_one()
        wanted = [f"t{rng.randrange(count)}" for _ in range(1_000)]
        users = select(t.turns.c.id, t.turns.c.user_id).where(t.turns.c.id.in_(wanted))
        found = connection.execute(users).all()
    for turn_id, user in found:
        store.vote(f"a{turn_id[1:]}-0", user, rng.choice((-1, 1)))
    begun = time.perf_counter()
    training_set.refresh()
    return time.perf_counter() - begun


def _console(path: Path) -> dict[str, Any]:
    """Measure the console's queries: the 95th percentile of each."""
    database = Database(f"sqlite:///{path}")
    store, curation = FeedbackStore(database), Curation(database)
    training_set = TrainingSet(EvidenceReader(database), curation)
    pairs = training_set.refresh().count("pairs")
    rng = random.Random(1)
    queries: dict[str, Callable[[], object]] = {
        "counts": store.counts,
        "examples": training_set.refresh,
        "a page": lambda: training_set.page("pairs", first=rng.randrange(pairs)),
        "a page of what is set aside": lambda: training_set.page("set_aside"),
        "decisions": curation.decisions,
        "gold": curation.gold,
    }
    p95 = {name: _p95(_times(query, 20)) for name, query in queries.items()}
    slowest = max(p95.values())
    database.close()
    return {"console_p95_seconds": _figure("< 0.1", slowest, slowest < 0.1, each=p95)}


def _voting(path: Path, answers: list[tuple[str, str]]) -> dict[str, Any]:
    """Let 40 users vote at once, each as soon as the last vote is saved."""
    database = Database(f"sqlite:///{path}")
    store = FeedbackStore(database)
    before = store.event_count()
    seconds: list[float] = []

    def person(number: int) -> None:
        rng = random.Random(number)
        for _ in range(VOTES_A_WRITER):
            answer_id, user = rng.choice(answers)
            begun = time.perf_counter()
            store.vote(answer_id, user, rng.choice((-1, 1)))
            seconds.append(time.perf_counter() - begun)

    people = [threading.Thread(target=person, args=(n,)) for n in range(WRITERS)]
    for thread in people:
        thread.start()
    for thread in people:
        thread.join()
    lost = WRITERS * VOTES_A_WRITER - (store.event_count() - before)
    p99 = statistics.quantiles(seconds, n=100)[-1]
    commit = statistics.median(_times(lambda: store.vote(*answers[0], 1), 20))
    database.close()
    return {
        "vote_p99_seconds": _figure(
            "< 0.025 with 40 writers",
            p99,
            p99 < 0.025,
            median=statistics.median(seconds),
            one_alone=commit,
        ),
        "votes_lost": _figure("0", lost, lost == 0),
    }


def _times(work: Callable[[], object], count: int) -> Iterator[float]:
    for _ in range(count):
        begun = time.perf_counter()
        work()
        yield time.perf_counter() - begun


def _p95(seconds: Iterator[float]) -> float:
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1]


def _figure(asked: str, reached: float, met: bool, **behind: Any) -> dict[str, Any]:
    return {"asked": asked, "reached": reached, "met": met, **behind}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
