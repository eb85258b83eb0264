"""The prompt modes as templates of LangChain show what the chat shows."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from langchain_core.example_selectors import BaseExampleSelector
from langchain_core.messages import AIMessage, HumanMessage

from engine.errors import InvalidInput
from engine.langchain import ChatBurnish, ModeExamples, mode_prompt
from engine.messages import Message
from engine.prompts.examples import Example
from engine.prompts.modes import COT_INSTRUCTION, MODES
from engine.prompts.similarity import SimilarExamples
from tests.app.conftest import BROWSER, Played

QUESTION = "How many {legs} do two spiders and a horse have?"
HISTORY = [Message("user", "Say hello."), Message("assistant", "Hello.")]
POOL = [
    Example("How tall is an oak?", "Thirty metres.", "Oaks are trees."),
    Example("What is 2 + 2?", "4", "Two and two."),
    Example("How many legs does a spider have?", "Eight.", "Spiders are arachnids."),
    Example("What is the capital of Norway?", "Oslo.", "Norway is in the north."),
]


def shown_by(played: Played) -> tuple[Message, ...]:
    """The messages of the engine's last request."""
    return played.engine.requests[-1].messages


@pytest.mark.parametrize("mode", MODES)
def test_a_template_before_the_chat_model_shows_what_the_chat_shows(
    api_stage: Played, mode: str
) -> None:
    api_stage.engine.says = "Answer: 20"
    history = [{"role": message.role, "content": message.content} for message in HISTORY]
    asked = {"question": QUESTION, "mode": mode, "temporary": True, "history": history}
    with httpx.Client(base_url=api_stage.url) as browser:
        browser.get("/", headers=BROWSER)
        assert browser.post("/chat/questions", json=asked).status_code == 200
    in_the_chat = shown_by(api_stage)
    service = api_stage.service
    prompt = mode_prompt(mode, examples=service.workspace.examples())
    said = [HumanMessage("Say hello."), AIMessage("Hello.")]
    chain = prompt | ChatBurnish(engine=api_stage.engine)
    assert chain.invoke({"question": QUESTION, "history": said}).text
    assert shown_by(api_stage) == in_the_chat
    assert shown_by(api_stage)[-3:-1] == tuple(HISTORY)


def test_a_template_says_what_it_needs_and_keeps_braces() -> None:
    prompt = mode_prompt("cot", system="Be {brief}.")
    assert prompt.input_variables == ["question"]
    system, question = prompt.invoke({"question": "{1, 2} or {}?"}).to_messages()
    assert (system.content, question.content) == (
        "Be {brief}.",
        f"{{1, 2}} or {{}}?\n\n{COT_INSTRUCTION}",
    )
    with pytest.raises(InvalidInput, match="unknown prompt mode 'loud'; known modes: plain"):
        mode_prompt("loud")


def test_the_most_similar_examples_are_shown_in_their_own_order() -> None:
    selector = ModeExamples("few-shot", POOL, count=2)
    rows = selector.select_examples({"question": "How many legs does a horse have?"})
    assert rows == [
        {"question": "How tall is an oak?", "answer": "Thirty metres."},
        {"question": "How many legs does a spider have?", "answer": "Eight."},
    ]
    selector.add_example({"question": "How many legs does a horse have?", "answer": "Four."})
    assert [
        row["answer"] for row in selector.select_examples({"question": "Legs of a horse?"})
    ] == ["Eight.", "Four."]
    (row, *_) = ModeExamples("few-shot-cot", POOL).select_examples({"question": "Oak?"})
    assert row["question"].endswith(COT_INSTRUCTION)
    assert row["answer"] == "Oaks are trees.\nAnswer: Thirty metres."
    assert ModeExamples("plain", POOL).select_examples({"question": "Oak?"}) == []


def test_another_selector_takes_the_place_of_the_mode_s_own() -> None:
    rows = [{"question": each.question, "answer": each.answer} for each in POOL]
    selectors: list[BaseExampleSelector] = [SimilarExamples(rows, k=1), _First(rows)]
    shown: list[Any] = [
        mode_prompt("few-shot", selector=selector)
        .invoke({"question": "How many legs has a spider?"})
        .to_messages()[1:-1]
        for selector in selectors
    ]
    assert [[message.content for message in messages] for messages in shown] == [
        ["How many legs does a spider have?", "Eight."],
        ["How tall is an oak?", "Thirty metres."],
    ]


class _First(BaseExampleSelector):
    """Selects the first example, whatever is asked."""

    def __init__(self, rows: list[dict[str, str]]) -> None:
        self._rows = rows

    def add_example(self, example: dict[str, str]) -> None:
        self._rows.append(example)

    def select_examples(self, input_variables: Any) -> list[dict[str, str]]:
        return self._rows[:1]
