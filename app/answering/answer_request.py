"""A request for one answer, as a value: what the model is shown, how it is sampled and stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.tools.called import CalledTool
from engine.messages import Message
from engine.prompts.reasoning import Reasoned, split_reasoning
from engine.request import LIVE, GenerationRequest, RawPrompt, SamplingParams
from engine.tools import CallReader, Spoken

if TYPE_CHECKING:
    from app.tools.toolbox import ToolOffer
    from feedback_store.storage.turns import UnstoredTurn


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A request for one answer: its messages, how it is sampled, and how it is stored.

    `turn` returns the id of the stored turn, or a new one that is stored with the answer; with None
    nothing is stored. Where `is_shown`, the answer replaces the one that its conversation showed.
    `continued_id` is the id of a stored answer that begins with `prefill` and is to be continued.
    With several `chains` of thought, their answers are put to a vote
    (`app.answering.self_consistency`). `call_format` is given where the messages offer tools. A raw
    `prompt` takes the place of the messages; the text after it is not split into thought and
    answer. A `fixed` text is the answer itself, and no model is asked.
    `passages` are those that the messages show (`Grounding.stored`). With a `tool_offer`, which the
    messages make, the answer may call its tools (`app.tools.agent`); `called` are calls on whose
    results the answer rests already. With a `conversation_id`, the live adapter may be a canary's
    candidate (`app.answering.canary_routing`).
    """

    messages: tuple[Message, ...]
    sampling: SamplingParams
    turn: Callable[[], str | UnstoredTurn] | None
    answer_line: bool = False
    note: str = ""
    adapter: str | None = LIVE
    user: str = ""
    timeout_seconds: float | None = None
    prefill: str = ""
    continued_id: str | None = None
    is_shown: bool = True
    example_ids: tuple[str, ...] = ()
    chains: int = 1
    thinking: bool | None = None
    call_format: CallReader | None = None
    prompt: RawPrompt | None = None
    echo: bool = False
    fixed: str = ""
    passages: tuple[Mapping[str, Any], ...] | None = None
    conversation_id: str | None = None
    tool_offer: ToolOffer | None = None
    called: tuple[CalledTool, ...] = ()
    extra_sampling: Mapping[str, Any] = field(default_factory=dict)  # stored beside the sampling

    def for_engine(self, adapter: str | None) -> GenerationRequest:
        """Return the request to the engine, under one adapter."""
        return GenerationRequest(
            self.messages,
            self.sampling,
            adapter,
            self.user,
            self.timeout_seconds,
            self.prefill,
            self.thinking,
            self.prompt,
            self.echo,
        )

    def stored_sampling(
        self, called: Sequence[CalledTool] = (), votes: Sequence[tuple[str, int]] = ()
    ) -> dict[str, Any]:
        """The sampling parameters that are stored with the answer, and what else led to it."""
        made: dict[str, Any] = self.sampling.as_dict()
        if self.chains > 1:
            made["samples"] = self.chains
        if self.thinking is not None:
            made["thinking"] = self.thinking
        if rows := [each.as_row() for each in (*self.called, *called)]:
            made["tool_calls"] = rows
        if votes:
            made["votes"] = votes
        return {**made, **self.extra_sampling}

    @property
    def is_stored(self) -> bool:
        """Return whether the answer is stored."""
        return self.continued_id is not None or self.turn is not None

    def split_whole(self, text: str) -> Reasoned:
        """Split a finished answer, its prefill included, into thought and answer."""
        return split_reasoning(self.prefill + text, answer_line=self.answer_line)

    def split(self, text: str, *, finished: bool) -> Reasoned:
        """Split the text as it is shown: without the prefill, unless an answer is continued."""
        if self.prompt is not None:
            return Reasoned("", text)
        return split_reasoning(
            self.prefill + text,
            finished=finished,
            answer_line=self.answer_line,
            given=0 if self.continued_id else len(self.prefill),
        )

    def spoken(self, reasoned: Reasoned, *, finished: bool) -> Spoken:
        """Split what follows the thought into words and calls."""
        if self.call_format is None:
            return Spoken(reasoned.answer)
        return self.call_format.read(reasoned.answer, finished=finished)
