"""Numbers and speed of the answers in a period."""

from __future__ import annotations

from sqlalchemy import update

from engine.prompts.modes import make_template
from feedback_store.examples.types import IMPORTED
from feedback_store.storage import tables as t
from feedback_store.storage.database import Database
from feedback_store.storage.store import FeedbackStore
from feedback_store.view.answer_figures import AnswerFigures, read_answer_figures

PLAIN = make_template("plain", (), "You are helpful.")


def answered(
    database: Database, at: float, first: float, seconds: float, tokens: int, base: str = "sha256:b"
) -> None:
    """An answer at a moment: its first token, its seconds after that, and its tokens."""
    store = FeedbackStore(database)
    turn = store.add_turn(user_id="ann", question="Q", template=PLAIN, conversation_id=f"c{at}")
    answer = store.begin_answer(turn.id, base_digest=base, adapter_digest=None, sampling={}, seed=0)
    store.finish_answer(answer, status="done", text="A", complete=True)
    times = {"created_at": at, "first_token_at": at + first, "finished_at": at + first + seconds}
    with database.write() as connection:
        connection.execute(
            update(t.answers)
            .where(t.answers.c.id == answer)
            .values(**times, completion_tokens=tokens)
        )
        connection.execute(update(t.turns).where(t.turns.c.id == turn.id).values(created_at=at))


def test_the_medians_are_those_of_the_period(database: Database) -> None:
    assert read_answer_figures(database, 0) == AnswerFigures(0, None, None)
    answered(database, 50, 9.0, 1.0, 9)  # before
    answered(database, 100, 0.5, 2.0, 20)  # 10 a second
    answered(database, 101, 1.5, 2.0, 80)  # 40 a second
    answered(database, 102, 0.25, 1.0, 30)  # 30 a second
    answered(database, 103, 7.0, 1.0, 1, base=IMPORTED)
    assert read_answer_figures(database, 100) == AnswerFigures(3, 30.0, 0.5)
