"""Drafts questions and answers from the passages of documents, for a person to approve.

After self-instruct (Wang et al. 2023): a draft whose question is near a known one, by ROUGE-L of
0.7, is left out. So is one that does not keep to the form, and one whose answer its passage does
not support. Knows the engine and the wording; knows no tables.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from langchain_core.documents import Document
from rapidfuzz.distance import Indel

from app.grounding import CHINESE, Grounding
from engine.errors import PromptTooLong
from engine.messages import Message, require_text
from engine.prompts.modes import make_template
from engine.request import Engine, GenerationRequest, SamplingParams, collect
from feedback_store.ai_feedback.drafts import Draft, Drafts, WaitingDraft
from feedback_store.documents.support import CITATION, unsupported_ends
from feedback_store.records import OPERATOR

NEAR_QUESTIONS = 0.7  # ROUGE-L of two questions; Wang et al. 2023, section 2.2
DRAFTED_AT_ONCE = 8
DRAFT_TOKENS = 160
LEAST_ANSWER_CHARS = 2
ENGLISH_ORDER = (
    "Write one question that a reader might ask and that the passage below answers, and its answer"
    " in one or two sentences. The question must make sense without the passage. Keep to this"
    " form:\nQuestion: ...\nAnswer: ...\n\nPassage:\n{passage}"
)
CHINESE_ORDER = (
    "请根据下面的段落，写一个读者可能会问、并且段落能够回答的问题，再用一两句话写出答案。"
    "不看段落也要能看懂这个问题。请按以下格式写：\n问题：……\n答案：……\n\n段落：\n{passage}"
)
DRAFT_FORM = re.compile(
    r"(?:Question|问题)\s*[:：]\s*(?P<question>\S.*?)\s*\n\s*(?:Answer|答案)\s*[:：]\s*"
    r"(?P<answer>\S.*?)\s*(?=\n\s*\n|\n\s*(?:Question|问题)\s*[:：]|\Z)",
    re.DOTALL,
)
WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]|\w+")


class Drafter:
    """Drafts with one engine, in the words of one adapter."""

    def __init__(
        self, engine: Engine, adapter: str | None, model: str, sampling: SamplingParams
    ) -> None:
        self._engine = engine
        self._adapter = adapter
        self._model = model
        self._sampling = replace(sampling, max_new_tokens=DRAFT_TOKENS)

    def draft(
        self, collection: str, passages: Iterable[Document], known: Sequence[str]
    ) -> Iterator[Draft]:
        """Yield a draft for each passage that gives one; `known` are questions drafted before."""
        questions = list(known)
        for group in _groups(passages):
            for passage, written in zip(group, self._write(group), strict=True):
                draft = read_draft(written, passage, collection, self._model)
                if draft is None or is_near(draft.question, questions):
                    continue
                questions.append(draft.question)
                yield draft

    def _write(self, passages: Sequence[Document]) -> list[str]:
        """Let the model write about each passage; "" for one that does not fit into its context."""
        orders = [draft_order(passage.page_content) for passage in passages]
        requests = [
            GenerationRequest(
                (Message("user", order),),
                replace(self._sampling, seed=secrets.randbits(31)),
                self._adapter,
            )
            for order in orders
        ]
        try:
            return [collect(stream).text for stream in self._engine.submit_many(requests)]
        except PromptTooLong:
            if len(passages) == 1:
                return [""]
            return [text for passage in passages for text in self._write([passage])]


def draft_order(passage: str) -> str:
    """Return the order to the model, in the passage's language."""
    order = CHINESE_ORDER if CHINESE.search(passage) else ENGLISH_ORDER
    return order.format(passage=passage)


def read_draft(written: str, passage: Document, collection: str, model: str) -> Draft | None:
    """Return the draft in what a model wrote; None if it is in another form, or not supported."""
    found = DRAFT_FORM.search(written)
    if found is None:
        return None
    question, answer = (CITATION.sub("", found[name]).strip() for name in ("question", "answer"))
    (source,) = Grounding(question, (passage,)).stored
    if len(answer) < LEAST_ANSWER_CHARS or unsupported_ends(answer, [source]):
        return None
    return Draft(collection, source, " ".join(question.split()), answer, model)


def is_near(question: str, others: Iterable[str]) -> bool:
    """Return whether a question is near one of some others by ROUGE-L (F-measure, Lin 2004).

    That is 2 * LCS / (m + n), which rapidfuzz calls the normalized similarity of insertions and
    deletions.
    """
    words = _words(question)
    near = (Indel.normalized_similarity(words, _words(each)) for each in others)
    return any(similarity >= NEAR_QUESTIONS for similarity in near)


def demonstration_of(draft: Draft, system_prompt: str) -> tuple[tuple[Message, ...], Draft]:
    """Return the prompt that a draft is an answer to, as the chat would show it, and the draft as
    the chat would answer: with a citation."""
    passage = {key: value for key, value in draft.passage.items() if key != "text"}
    shown = Document(str(draft.passage["text"]), metadata=passage)
    asked = Grounding(draft.question, (shown,)).shown_question
    prompt = make_template("plain", (), system_prompt).build((), asked)
    cited = draft.answer if CITATION.search(draft.answer) else f"{draft.answer} [1]"
    return prompt, replace(draft, answer=cited)


def learn_draft(
    drafts: Drafts, draft: WaitingDraft, system_prompt: str, judge: str = OPERATOR
) -> Draft:
    """Let training learn a draft as it is, with its passage shown; returns it as it is learnt.

    Raises `UnknownId` for one that was decided about meanwhile, `InvalidText` for a text that
    cannot be stored.
    """
    question = " ".join(require_text(draft.question, what="question").split())
    answer = require_text(draft.answer, what="answer").strip()
    prompt, shown = demonstration_of(
        replace(draft, question=question, answer=answer), system_prompt
    )
    drafts.approve(shown, draft.id, prompt, judge)
    return shown


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def _groups(passages: Iterable[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    for passage in passages:
        group.append(passage)
        if len(group) == DRAFTED_AT_ONCE:
            yield group
            group = []
    if group:
        yield group
