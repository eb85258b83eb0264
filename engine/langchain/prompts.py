"""The chat's prompt modes as prompt templates of LangChain, to be used without the chat.

`mode_prompt` shows a model the very messages that the chat page shows it in that mode, before what
one person's feedback adds; a test compares the two. Knows templates; knows no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.example_selectors import BaseExampleSelector
from langchain_core.prompts import (
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
    MessagesPlaceholder,
)

from engine.prompts.examples import SHOWN, Example, default_examples
from engine.prompts.modes import SYSTEM_PROMPT, PromptTemplate, make_template
from engine.prompts.similarity import most_similar


class ModeExamples(BaseExampleSelector):
    """Selects the worked examples of a mode that are the most similar to a question.

    They come in their own order, so that prompts with the same examples begin alike, as rows of
    `question` and `answer` in the mode's words; a mode without examples gets none.
    """

    def __init__(
        self,
        mode: str = "few-shot",
        examples: Iterable[Example] | None = None,
        *,
        count: int = SHOWN,
    ) -> None:
        """`examples` are by default a new home's. Raises `InvalidInput` for an unknown mode."""
        self._template = make_template(mode, _pool(examples))
        self._examples = self._template.examples
        self._count = count

    def add_example(self, example: dict[str, str]) -> None:
        """Append an example: its `question`, `answer` and, if there is one, `thought`."""
        new = Example(example["question"], example["answer"], example.get("thought", ""))
        self._examples = (*self._examples, new)

    def select_examples(self, input_variables: Mapping[str, Any]) -> list[dict[str, str]]:
        """The rows for `input_variables["question"]`."""
        template = self._template
        chosen = most_similar(self._examples, str(input_variables["question"]), self._count)
        return [{"question": template.ask(e.question), "answer": template.reply(e)} for e in chosen]


def mode_prompt(
    mode: str = "plain",
    *,
    examples: Iterable[Example] | None = None,
    system: str = SYSTEM_PROMPT,
    selector: BaseExampleSelector | None = None,
) -> ChatPromptTemplate:
    """Return a mode's template of `question` and, optionally, `history` (messages before it).

    Without `examples`, those of a new home; a `selector` takes the place of `ModeExamples`. Braces
    in texts are plain text. Raises `InvalidInput` for an unknown mode.
    """
    pool = _pool(examples)
    template = make_template(mode, pool, system)
    chosen = selector or ModeExamples(mode, pool)
    shown = ChatPromptTemplate.from_messages([("human", "{question}"), ("ai", "{answer}")])
    few_shot = FewShotChatMessagePromptTemplate(
        example_prompt=shown, example_selector=chosen, input_variables=["question"]
    )
    return ChatPromptTemplate.from_messages(
        [
            ("system", "{system}"),
            few_shot,
            MessagesPlaceholder("history", optional=True),
            ("human", "{question}{instruction}"),
        ]
    ).partial(system=system, instruction=_instruction(template))


def _instruction(template: PromptTemplate) -> str:
    """The instruction that follows the question in its message."""
    return template.ask("")


def _pool(examples: Iterable[Example] | None) -> tuple[Example, ...]:
    return default_examples() if examples is None else tuple(examples)
