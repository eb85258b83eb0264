"""A model's calls of tools, judged: `python -m benchmarks.tools --json`.

Twenty questions that a calculator, a clock or a search in documents answers, asked greedily with
all three tools on: how many answers call the right tool, how many calls give a result with the
right figure, and how many answers have it; beside the answers without tools. The questions stand
in `benchmarks/tools.yaml`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from platformdirs import user_cache_path

from app.answering.answer_options import AnswerOptions
from app.answering.answering import AnswerUpdate, RunningAnswer
from app.service import Service
from app.settings import load_settings
from app.workspace import Workspace
from engine.hardware import processor_name
from feedback_store.documents.library import Collection

QUESTIONS = Path(__file__).with_suffix(".yaml")
TOOLS = ("calculator", "clock", "documents")
PERSON = "benchmark"
NEW_TOKENS = 128


class Asked(NamedTuple):
    """A question, the tool that answers it, and the pattern of the right answer."""

    tool: str
    question: str
    pattern: re.Pattern[str]


def main() -> None:
    """Print the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the document on one line")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings(
            home=Path(home),
            model=arguments.model,
            model_cache=arguments.model_cache,
            tools=TOOLS,
            max_new_tokens=NEW_TOKENS,
        )
        service = Service(Workspace(settings))
        service.start()
        try:
            document = measured(service)
        finally:
            service.close()
    print(json.dumps(document) if arguments.json else json.dumps(document, indent=2))


def measured(service: Service) -> dict[str, Any]:
    """Ask every question with and without tools."""
    settings = yaml.safe_load(QUESTIONS.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "office.md"
        file.write_text(settings["text"], "utf-8")
        service.workspace.documents.add(Collection("Office", PERSON), file, file.name)
    questions = list(read_questions(settings))
    rows = []
    for asked in questions:
        alone = answered(service, asked, f"{PERSON}-without")
        for tool in TOOLS:
            service.workspace.toolbox.allow(PERSON, tool, True)
        helped = answered(service, asked, PERSON)
        rows.append(judged(asked, alone, helped))
        print(json.dumps(rows[-1], ensure_ascii=False), file=sys.stderr, flush=True)
    kinds = ("called", "called_right_tool", "right_result", "right_with_tools", "right_without")
    return {
        "questions": len(rows),
        **{kind: sum(row[kind] for row in rows) for kind in kinds},
        "model": service.workspace.base.name,
        "processor": processor_name(),
        "answers": rows,
    }


def read_questions(settings: dict[str, Any]) -> Iterator[Asked]:
    """Yield the questions, with today's date in their patterns."""
    now = datetime.now(UTC)
    today = {
        "year": str(now.year),
        "weekday": f"{now:%A}",
        "month": f"{now:%B}",
        "day": str(now.day),
    }
    for tool in TOOLS:
        for each in settings[tool]:
            pattern = each["answer"]
            for name, value in today.items():
                pattern = pattern.replace(f"{{{name}}}", value)
            yield Asked(tool, each["question"], re.compile(pattern))


def answered(service: Service, asked: Asked, person: str) -> AnswerUpdate:
    """Ask one question greedily, in a conversation of its own."""
    sampling = service.chat.sampling(temperature=0.0, seed=0)
    options = AnswerOptions(adapter=None, sampling=sampling, zone=UTC)
    running: RunningAnswer = service.chat.ask_unstored(person, [], asked.question, options)
    *_, last = running
    return last


def judged(asked: Asked, alone: AnswerUpdate, helped: AnswerUpdate) -> dict[str, Any]:
    """Judge the two answers to one question."""
    return {
        "question": asked.question,
        "called": bool(helped.called),
        "called_right_tool": any(call.name == asked.tool for call in helped.called),
        "right_result": any(asked.pattern.search(call.result) for call in helped.called),
        "right_with_tools": bool(asked.pattern.search(helped.text)),
        "right_without": bool(asked.pattern.search(alone.text)),
        "calls": [call.as_row() for call in helped.called],
        "text": helped.text,
        "text_without": alone.text,
        "status": helped.status,
    }


if __name__ == "__main__":
    main()
