"""Thoughts in `<think>` blocks leave the answers that they were stored with.

Answers were stored as the model wrote them, except in chain-of-thought mode. Splitting the rows
once, here, leaves every reader with one form: history, training, search and export.
"""

import sqlalchemy as sa
from alembic import op

revision = "feedback_0004"
down_revision = "feedback_0003"
branch_labels = None
depends_on = None

answers = sa.table(
    "answers", *(sa.column(name, sa.Text) for name in ("id", "turn_id", "text", "thought"))
)
turns = sa.table("turns", *(sa.column(name, sa.Text) for name in ("id", "conversation_id")))
stale = sa.table("stale", sa.column("conversation_id", sa.Text))
OPEN, CLOSE = "<think>", "</think>"


def upgrade() -> None:
    connection = op.get_bind()
    tagged = (
        sa.select(answers.c.id, turns.c.conversation_id)
        .join(turns, turns.c.id == answers.c.turn_id)
        .where(answers.c.thought == "", answers.c.text.contains(OPEN))
    )
    changed: set[str] = set()
    for answer_id, conversation_id in connection.execute(tagged).all():
        row = answers.c.id == answer_id
        text = connection.execute(sa.select(answers.c.text).where(row)).scalar_one()
        thought, answer = _split(text)
        if answer != text:
            values = {"text": answer, "thought": thought}
            connection.execute(sa.update(answers).where(row).values(values))
            changed.add(conversation_id)
    changed -= set(connection.execute(sa.select(stale.c.conversation_id)).scalars())
    for conversation_id in sorted(changed):  # its examples are derived anew
        connection.execute(sa.insert(stale).values(conversation_id=conversation_id))


def _split(text: str) -> tuple[str, str]:
    """Thought in its tags, and answer; a frozen copy, since `split_reasoning` may change."""
    thoughts: list[str] = []
    rest = text
    while (begun := rest.lstrip()).startswith(OPEN):
        inside, _, rest = begun.removeprefix(OPEN).partition(CLOSE)
        thoughts.append(inside.strip())
        rest = rest.lstrip()
    thought = "\n\n".join(filter(None, thoughts))
    return (f"{OPEN}\n{thought}\n{CLOSE}" if thought else ""), rest


def downgrade() -> None:
    raise NotImplementedError("restore a backup instead: events are never thrown away")
