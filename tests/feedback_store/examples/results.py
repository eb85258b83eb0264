"""Short ways to read the examples of a prompt."""

from __future__ import annotations

from collections import Counter

from feedback_store.examples.pairing import PromptExamples


def reasons(result: PromptExamples) -> dict[str, int]:
    """How often each reason was given."""
    return dict(Counter(item.reason for item in result.set_aside))


def lone(result: PromptExamples) -> list[tuple[str, bool]]:
    """Text and label of each unpaired example."""
    return sorted((each.completion.text, each.label) for each in result.unpaired)


def shown(result: PromptExamples) -> list[str]:
    """The texts of the demonstrations."""
    return [each.completion.full_text for each in result.demonstrations]
