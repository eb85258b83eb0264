"""Greedy answers to fixed prompts, and measures of them.

The texts stay in memory: a tuned model may repeat what people said to it, so only the measures are
ever written. Knows no verdicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from engine.messages import Message
from engine.prompts.examples import read_examples
from engine.prompts.modes import has_answer_line, make_template
from engine.prompts.reasoning import split_reasoning
from engine.request import Engine, Finished, GenerationRequest, SamplingParams, collect
from engine.yaml_files import shipped_yaml
from tuning.evaluation.roles import Adapters, ModelRole, for_each_role
from tuning.evaluation.text_metrics import (
    AnswerFormat,
    Language,
    is_empty,
    keeps_format,
    language,
    refuses,
    repetition,
)
from tuning.judge import Judge, compare

# Long enough for what the prompts ask. All 24 answers of a 135M model take seconds on two cores.
EVALUATION_NEW_TOKENS = 96
MAX_THOUGHT_TOKENS = 160  # a thought and an answer


@dataclass(frozen=True, slots=True)
class EvaluationPrompt:
    """One fixed prompt: its text, its language, and the form it asks for."""

    id: str
    language: Language
    text: str
    mode: str = "plain"
    asks: AnswerFormat | None = None

    @property
    def max_new_tokens(self) -> int:
        """The token at which its answers are cut."""
        return MAX_THOUGHT_TOKENS if has_answer_line(self.mode) else EVALUATION_NEW_TOKENS


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt with every model's answer."""

    prompt: EvaluationPrompt
    answers: Mapping[ModelRole, Finished]


@dataclass(frozen=True, slots=True)
class AnswerMeasures:
    """One answer, measured. `format_kept` is None where the prompt asks for no form."""

    tokens: int
    finished: bool  # it ended by itself
    empty: bool
    repetition: float  # share of four-word phrases that were there before
    refused: bool
    language_kept: bool
    format_kept: bool | None


@dataclass(frozen=True, slots=True)
class PromptMeasures:
    """Measures of every model's answer to one prompt."""

    prompt_id: str
    asks: AnswerFormat | None
    measures: Mapping[ModelRole, AnswerMeasures]


@dataclass(frozen=True, slots=True)
class Opinions:
    """A judge's view of candidate against incumbent; a win counts if both orders agree on it."""

    wins: int
    ties: int
    losses: int


def load_prompts() -> list[EvaluationPrompt]:
    """The fixed prompts, in their order."""
    return [EvaluationPrompt(**each) for each in shipped_yaml("tuning.evaluation", "prompts.yaml")]


def answer_prompts(
    engine: Engine, adapters: Adapters, prompts: Sequence[EvaluationPrompt]
) -> list[Answered]:
    """Every model's greedy answers; those of one adapter are decoded together."""
    messages = [evaluation_messages(prompt) for prompt in prompts]

    def answers(adapter: str | None) -> list[Finished]:
        requests = [
            GenerationRequest(
                shown,
                SamplingParams(temperature=0, max_new_tokens=prompt.max_new_tokens),
                adapter,
                user="evaluation",
            )
            for prompt, shown in zip(prompts, messages, strict=True)
        ]
        return [collect(stream) for stream in engine.submit_many(requests)]

    by_role = for_each_role(adapters, answers)
    return [
        Answered(prompt, {role: found[at] for role, found in by_role.items()})
        for at, prompt in enumerate(prompts)
    ]


def evaluation_messages(prompt: EvaluationPrompt) -> tuple[Message, ...]:
    """The messages of a prompt, with the default system prompt and examples, not a home's own."""
    with resources.as_file(resources.files("engine.prompts") / "examples.yaml") as path:
        return make_template(prompt.mode, read_examples(path)).build([], prompt.text)


def measure_answers(answered: Answered) -> PromptMeasures:
    """Measure every model's answer to one prompt."""
    prompt = answered.prompt
    measures = {role: _measure(prompt, answer) for role, answer in answered.answers.items()}
    return PromptMeasures(prompt.id, prompt.asks, measures)


def ask_judge(judge: Judge, answered: Iterable[Answered]) -> Opinions:
    """Show each prompt's two answers in both orders; where the judge does not decide, a tie."""
    outcomes = Counter(
        compare(
            judge,
            (Message("user", each.prompt.text),),
            _answer_of(each.prompt, each.answers["candidate"]),
            _answer_of(each.prompt, each.answers["incumbent"]),
        )
        for each in answered
    )
    wins, losses = outcomes["first"], outcomes["second"]
    return Opinions(wins, outcomes.total() - wins - losses, losses)


def _answer_of(prompt: EvaluationPrompt, answer: Finished) -> str:
    """The answer without its thought; of one that was cut while it thought, the thought."""
    said = split_reasoning(answer.text, answer_line=has_answer_line(prompt.mode))
    return said.answer if said.answer or answer.reason == "stop" else said.thought


def _measure(prompt: EvaluationPrompt, answer: Finished) -> AnswerMeasures:
    text = _answer_of(prompt, answer)
    spoken = language(text)
    return AnswerMeasures(
        tokens=answer.completion_tokens,
        finished=answer.reason == "stop",
        empty=is_empty(text),
        repetition=repetition(text),
        refused=refuses(text),
        language_kept=spoken is None or spoken == prompt.language,  # an empty answer counts as such
        format_kept=None if prompt.asks is None else keeps_format(answer.text, prompt.asks),
    )
