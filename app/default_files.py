"""The files of a new home that the operator edits: few-shot examples and shared prompts."""

from __future__ import annotations

from app.shared_prompts import default_prompts_text
from engine.home import Home
from engine.prompts.examples import default_examples_text
from engine.storage import write_atomically


def add_default_files(home: Home) -> None:
    """Write each file unless the home has it."""
    for path, text in (
        (home.examples, default_examples_text()),
        (home.prompts, default_prompts_text()),
    ):
        if not path.is_file():
            write_atomically(path, text.encode())
