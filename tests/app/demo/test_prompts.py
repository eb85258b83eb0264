"""The prompts of the demo."""

from __future__ import annotations

import json
from pathlib import Path

from app.demo.feedback import FEEDBACK_WAYS
from app.demo.run import MOST_ROUNDS, PROMPTS_OF_A_ROUND, prompts_of_file, read_questions


def test_no_prompt_is_asked_twice_and_there_are_enough_for_every_way() -> None:
    prompts = read_questions()
    everything = [*prompts["feedback"], *prompts["unseen"]]
    assert len(set(everything)) == len(everything)
    needed = max(MOST_ROUNDS * PROMPTS_OF_A_ROUND, *(e.questions for e in FEEDBACK_WAYS.values()))
    assert len(prompts["feedback"]) >= needed
    assert len(prompts["unseen"]) == 40


def test_other_prompts_are_the_questions_of_one_line_in_a_file_of_any_format(
    tmp_path: Path,
) -> None:
    file = tmp_path / "tasks.jsonl"
    tasks = [("Name a fruit.", ""), ("Add them.", "1 and 2"), ("Say hello.", "")]
    rows = [
        {"instruction": text, "instances": [{"input": given, "output": "Yes."}]}
        for text, given in tasks
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    assert prompts_of_file(file, 10) == ["Name a fruit.", "Say hello."]
    assert prompts_of_file(file, 1) == ["Name a fruit."]
