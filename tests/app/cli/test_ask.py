"""One answer at the command line: its thought apart, and many thoughts for one answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.ask import answer_question
from app.service import Service


def test_a_thought_is_told_from_its_answer_in_every_mode(
    service: Service, model_says: Callable[[str], None]
) -> None:
    asked: dict[str, Any] = {
        "adapter": "base",
        "temperature": 1.0,
        "max_new_tokens": 99,
        "seed": 1,
        "show": None,
    }
    block = "<think>\nOne and one.\n</think>\n\n"
    for mode, said, answer in (
        ("plain", f"{block}two", "two"),
        ("few-shot", f"{block}two", "two"),
        ("cot", f"{block}two", "two"),
        ("cot", "One and one.\nAnswer: two", "two"),
        ("plain", "Hm.\nAnswer: two", "Hm.\nAnswer: two"),
    ):
        model_says(said)
        found = answer_question(service, "Add one and one.", mode=mode, **asked)
        thought = "" if answer == said else "One and one."
        assert (found["thought"], found["text"]) == (thought, answer)
    model_says(f"{block}So it is:\nAnswer: two")
    asked |= {"mode": "self-consistency", "samples": 2}
    voted = answer_question(service, "Add one and one.", **asked)
    assert (voted["text"], voted["votes"]) == ("two", 2)
