"""Grounds a question in documents: finds passages and shows them to the model with the question.

The passages stand in the user's message, numbered, so that the stored prompt holds what the model
was shown. The model is asked for an answer alone: a small one that is to cite, or may say that the
passages do not answer, does little else. Citations are found afterwards (`support`), and where no
passage is found, the answer is given without the model. Knows the library and the wording; knows
nothing of engines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document

from engine.errors import InvalidInput
from engine.messages import Message
from engine.prompts.terms import tokens
from feedback_store.documents.library import Collection, Library
from feedback_store.documents.retrieval import find_passages

SHOWN_PASSAGES = 4
MOST_TERMS_OF_A_FOLLOW_UP = 2  # a question with more content words stands for itself
STORED = ("source", "document", "page", "heading")  # of a passage's metadata
CHINESE = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True, slots=True)
class Wording:
    """The words around passages in one language."""

    instruction: str
    none_found: str
    passages: str
    page: str
    question: str
    not_there: str


ENGLISH = Wording(
    instruction="Answer the question briefly, from the passages below alone.",
    none_found="(No passage fits the question.)",
    passages="Passages:",
    page="page {page}",
    question="Question: {question}",
    not_there="The documents do not say.",
)
CHINESE_WORDING = Wording(
    instruction="请只根据下面的段落，简短地回答问题。",
    none_found="（没有与问题相关的段落。）",
    passages="段落：",
    page="第 {page} 页",
    question="问题：{question}",
    not_there="文档中没有提到。",
)


@dataclass(frozen=True, slots=True)
class Grounding:
    """The passages found for a question, the best first; none where nothing fits."""

    question: str
    passages: tuple[Document, ...]

    @property
    def wording(self) -> Wording:
        """The words of the question's language."""
        return CHINESE_WORDING if CHINESE.search(self.question) else ENGLISH

    @property
    def shown_question(self) -> str:
        """The question with the passages before it, as the model is shown it."""
        words = self.wording
        passages = [
            f"[{number}] {place_of(passage, words)}\n{passage.page_content}"
            for number, passage in enumerate(self.passages, start=1)
        ] or [words.none_found]
        question = words.question.format(question=self.question)
        return "\n\n".join((words.instruction, words.passages, *passages, question))

    @property
    def fixed_answer(self) -> str:
        """The answer where no passage was found, else ""."""
        return "" if self.passages else self.wording.not_there

    @property
    def stored(self) -> list[dict[str, Any]]:
        """The passages as a turn keeps them, JSON-ready."""
        places = [{k: p.metadata[k] for k in STORED if k in p.metadata} for p in self.passages]
        return [
            {"text": passage.page_content, **place}
            for passage, place in zip(self.passages, places, strict=True)
        ]

    def that_fits(self, fits: Callable[[str], bool]) -> Grounding:
        """Return it with as many of the best passages as fit; `fits` is asked of a question."""
        for count in range(len(self.passages), 1, -1):
            shorter = Grounding(self.question, self.passages[:count])
            if fits(shorter.shown_question):
                return shorter
        return Grounding(self.question, self.passages[:1])


def ground(
    library: Library, collection: Collection, question: str, history: Sequence[Message]
) -> Grounding:
    """Find the passages for a question; raises `InvalidInput` for a collection without documents.

    "And in winter?" means nothing alone, so where nothing is found for a later question of few
    words, it is searched together with the question before it.
    """
    if not library.in_collection(collection):
        raise InvalidInput(f"the collection {collection.name[:80]!r} has no documents any more")
    found = find_passages(library, collection, question, SHOWN_PASSAGES)
    earlier = [message.content for message in history if message.role == "user"]
    if not found and earlier and len(set(tokens(question))) <= MOST_TERMS_OF_A_FOLLOW_UP:
        together = f"{earlier[-1]}\n{question}"
        found = find_passages(library, collection, together, SHOWN_PASSAGES)
    return Grounding(question, tuple(found))


def place_of(passage: Document, words: Wording) -> str:
    """Return where a passage stands: its document, and the page or the heading there."""
    made = passage.metadata
    place = words.page.format(page=made["page"]) if "page" in made else made.get("heading", "")
    return ", ".join(filter(None, (made["source"], place)))
