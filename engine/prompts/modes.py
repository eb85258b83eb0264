"""Prompt modes: how a question becomes the messages that a model is shown.

`plain` shows the question alone, `few-shot` worked examples before it (Brown et al. 2020), `cot`
asks for a thought first (Kojima et al. 2022), `few-shot-cot` does both, with the thoughts of the
examples (Wei et al. 2022). `self-consistency` shows the prompt of `few-shot-cot` several times and
takes the majority of the answers (Wang et al. 2022).

A `PromptTemplate` is a value with a hash. The hash is stored with each turn and the definition
beside it, so that the prompt can be rebuilt for training, word for word. Knows nothing of tokens or
chat templates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from engine.errors import InvalidInput
from engine.messages import Message
from engine.prompts.examples import Example
from engine.prompts.reasoning import join_reasoning
from engine.storage import digest_json

Mode = Literal["plain", "few-shot", "cot", "few-shot-cot", "self-consistency"]
MODES: tuple[str, ...] = get_args(Mode)
SHOW_EXAMPLES = frozenset({"few-shot", "few-shot-cot", "self-consistency"})
ASK_FOR_THOUGHT = frozenset({"cot", "few-shot-cot", "self-consistency"})
SELF_CONSISTENCY = "self-consistency"
# The number of chains of thought; Wang et al. 2022, figure 2: the first 5 to 10 gain the most
CHAINS, LEAST_CHAINS, MOST_CHAINS = 5, 2, 16

SYSTEM_PROMPT = "You are a helpful assistant."
# Kojima et al. 2022 ("think step by step"); `reasoning.split_reasoning` looks for the marker. Small
# models do not keep to the form without worked examples (Wei et al. 2022)
COT_INSTRUCTION = (
    "Think step by step first. Then give the final answer on a new line that starts with 'Answer:'."
)
FROM_LANGCHAIN: dict[str, Callable[[str], Message]] = {
    "system": lambda text: Message("system", text),
    "human": lambda text: Message("user", text),
    "ai": lambda text: Message("assistant", text),
}


@dataclass(frozen=True)
class PromptTemplate:
    """One mode with everything that it shows beside the conversation itself.

    `system` None shows no system message; a blank one shows a blank message.
    """

    mode: str
    system: str | None
    instruction: str
    examples: tuple[Example, ...]

    @cached_property
    def hash(self) -> str:
        """Digest of the definition."""
        return digest_json(self.as_dict())

    @property
    def has_answer_line(self) -> bool:
        """Return whether the mode asks for a thought and for an "Answer:" line after it."""
        return has_answer_line(self.mode)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready definition; `template_from_dict` is its inverse."""
        return asdict(self)

    def build(self, history: Sequence[Message], question: str) -> tuple[Message, ...]:
        """Build the messages to show: system, examples, history, question.

        The texts are values of the template's variables, so braces in them are plain text.
        """
        return (*self._head, *history, Message("user", self.ask(question)))

    def with_examples(
        self, messages: Sequence[Message], own: Sequence[Example]
    ) -> tuple[Message, ...]:
        """Insert a person's own examples between the operator's and the history of `build`.

        So the common beginning of all prompts stays the same, and the prefix cache has it.
        """
        head = len(self._head)
        shown: list[Message] = []
        for example in own:
            shown.append(Message("user", self.ask(example.question)))
            shown.append(Message("assistant", self.reply(example)))
        return (*messages[:head], *shown, *messages[head:])

    @cached_property
    def _head(self) -> tuple[Message, ...]:
        """System prompt and examples: the same for every question, and slow to render."""
        # Takes as long to import as a whole command that only reads stored templates
        from langchain_core.prompts import ChatPromptTemplate, FewShotChatMessagePromptTemplate

        examples = FewShotChatMessagePromptTemplate(
            example_prompt=ChatPromptTemplate.from_messages(
                [("human", "{question}"), ("ai", "{answer}")]
            ),
            examples=[
                {"question": self.ask(e.question), "answer": self.reply(e)} for e in self.examples
            ],
            input_variables=[],
        )
        system = [] if self.system is None else [("system", "{system}")]
        template = ChatPromptTemplate.from_messages([*system, examples])
        prompt = template.invoke({"system": self.system})
        return tuple(FROM_LANGCHAIN[m.type](str(m.content)) for m in prompt.to_messages())

    def ask(self, question: str) -> str:
        """Return a question as its user message has it, with the mode's instruction."""
        return f"{question}\n\n{self.instruction}" if self.instruction else question

    def reply(self, example: Example) -> str:
        """Return an example's answer as its message has it, with the thought if the mode asks."""
        return join_reasoning(example.thought if self.has_answer_line else "", example.answer)


def has_answer_line(mode: str) -> bool:
    """Return whether a mode asks for a thought and a line that starts with "Answer:" after it."""
    return mode in ASK_FOR_THOUGHT


def make_template(
    mode: str, examples: tuple[Example, ...], system: str = SYSTEM_PROMPT
) -> PromptTemplate:
    """The template of a mode; raises `InvalidInput` naming the known modes."""
    if mode not in MODES:
        raise InvalidInput(f"unknown prompt mode {mode!r}; known modes: {', '.join(MODES)}")
    return PromptTemplate(
        mode=mode,
        system=system,
        instruction=COT_INSTRUCTION if has_answer_line(mode) else "",
        examples=examples if mode in SHOW_EXAMPLES else (),
    )


def template_from_dict(definition: Mapping[str, Any]) -> PromptTemplate:
    """Inverse of `PromptTemplate.as_dict`."""
    examples = tuple(Example(**example) for example in definition["examples"])
    return PromptTemplate(**{**definition, "examples": examples})
