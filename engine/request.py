"""The interface of an engine: requests, events and scores as values. Imports no torch."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from engine.errors import BurnishError, InvalidInput
from engine.messages import Message, tools_of
from engine.time_slices import YieldToEngine
from engine.tools import CallReader, ToolChoice

BASE, LIVE = "base", "live"  # names of a release, beside the digests of adapters
SEEDS = 2**63  # a seed is one of the integers from 0 up to this
FinishReason = Literal["stop", "length", "cancelled"]
RawPrompt = str | tuple[int, ...]  # text or token ids that no chat template has rendered
GrammarKind = Literal["json_schema", "regex", "lark", "gbnf"]
MAX_GRAMMAR_CHARS = 2**16  # it is stored with each answer
MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024  # entries; they are stored with each answer
LEAST_REPETITION_PENALTY = 0.01  # smaller values soon overflow and give no usable text


@dataclass(frozen=True, slots=True)
class Grammar:
    """The language of an answer: a JSON Schema (as JSON), a regular expression in Rust's syntax, a
    grammar in llguidance's Lark, or one in llama.cpp's GBNF."""

    kind: GrammarKind
    text: str

    def __post_init__(self) -> None:
        if len(self.text) > MAX_GRAMMAR_CHARS:
            raise InvalidInput(f"a grammar may have at most {MAX_GRAMMAR_CHARS} characters")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The choice of the next token, and the log-probabilities that are reported.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 switch those filters off; `top_p`
    0 leaves the most likely token; `min_p` keeps the tokens whose probability is at least `min_p`
    times that of the most likely one (Nguyen et al. 2024). `seed` fixes the draw. `stop` strings
    end the answer and are not part of it. `ignore_eos` is for benchmarks. `logprobs` asks for each
    token's log-probability and for that many of the most likely tokens beside it, as many as
    `MAX_LOGPROBS`; None asks for none.

    `logit_bias` is added to the logits of the tokens it names. A token that the answer has n times
    already loses `n * frequency_penalty + presence_penalty`, the latter if n > 0 (OpenAI's API
    reference). `repetition_penalty` counts the prompt too (Keskar et al. 2019, 4.1). `grammar`
    forbids every token that leads out of its language, and ends an answer that is complete.
    `tool_choice` is the rule for calls where the messages offer tools; None is "auto".
    """

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 512
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    min_p: float = 0.0
    logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, what is added)
    grammar: Grammar | None = None
    tool_choice: ToolChoice | None = None

    def __post_init__(self) -> None:
        problems = [
            message
            for wrong, message in (
                (not 0 <= self.temperature <= 10, "temperature must lie in [0, 10]"),
                (not 0 <= self.top_p <= 1, "top_p must lie in [0, 1]"),
                (self.top_k < 0, "top_k must not be negative"),
                (
                    not LEAST_REPETITION_PENALTY <= self.repetition_penalty <= 10,
                    f"repetition_penalty must lie in [{LEAST_REPETITION_PENALTY}, 10]",
                ),
                (self.max_new_tokens < 1, "max_new_tokens must be at least 1"),
                (not 0 <= self.seed < SEEDS, "seed must lie in [0, 2**63)"),
                (any(not s for s in self.stop), "stop strings must not be empty"),
                (not 0 <= self.min_p <= 1, "min_p must lie in [0, 1]"),
                (
                    self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS,
                    f"logprobs must lie in [0, {MAX_LOGPROBS}]",
                ),
                (not -2 <= self.presence_penalty <= 2, "presence_penalty must lie in [-2, 2]"),
                (not -2 <= self.frequency_penalty <= 2, "frequency_penalty must lie in [-2, 2]"),
                (
                    len(self.logit_bias) > MAX_LOGIT_BIAS,
                    f"logit_bias may name at most {MAX_LOGIT_BIAS} tokens",
                ),
                (
                    any(not -100 <= bias <= 100 for _, bias in self.logit_bias),
                    "each logit_bias must lie in [-100, 100]",
                ),
            )
            if wrong
        ]
        if problems:
            raise InvalidInput("; ".join(problems))

    def require_known_tokens(self, vocabulary: int) -> None:
        """Raise `InvalidInput` where `logit_bias` names a token that the model does not have."""
        unknown = [token_id for token_id, _ in self.logit_bias if not 0 <= token_id < vocabulary]
        if unknown:
            raise InvalidInput(
                f"logit_bias names token {unknown[0]}; the model has tokens 0 to {vocabulary - 1}"
            )

    def as_dict(self) -> dict[str, object]:
        """JSON-ready form, stored with each answer."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate. `adapter` is a loaded adapter's digest; None is the base model.

    `user` is the account that an engine schedules fairly among others; "" is no account.
    `timeout_seconds` counts from submission; past it the stream ends with
    `Failed(DeadlineExceeded(...))`, whether it was running or still waiting. `prefill` is the given
    beginning of the answer: the events have what follows it, and its tokens count as the prompt's.
    It also continues an answer that was cut off. `thinking` switches thoughts on or off where the
    chat template has that switch (`enable_thinking`); None leaves it to the template. An answer to
    messages that offer tools is in the engine's `call_format`, with arguments that are valid.

    A raw `prompt` takes the place of `messages`, which are () then: it is encoded as the tokenizer
    encodes any text (its bos token where it adds one, control tokens by their names), and the
    answer is all text that follows. With `echo` the first event is `PromptRead`.
    """

    messages: tuple[Message, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    adapter: str | None = None
    user: str = ""
    timeout_seconds: float | None = None
    prefill: str = ""
    thinking: bool | None = None
    prompt: RawPrompt | None = None
    echo: bool = False

    def __post_init__(self) -> None:
        if self.prompt is not None and (self.messages or self.prefill):
            raise InvalidInput("a request has either messages or a raw prompt")
        if self.timeout_seconds is not None and not 0 < self.timeout_seconds < math.inf:
            raise InvalidInput("timeout_seconds must be a number above 0")
        if self.prefill and self.sampling.grammar is not None:
            raise InvalidInput("an answer that is given in part cannot follow a grammar")
        if tools_of(self.messages):
            if self.prefill:
                raise InvalidInput("tools: an answer that is given in part is offered none")
            if self.sampling.grammar is not None:
                raise InvalidInput(
                    "tools: an answer that follows a response format is offered none"
                )


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A chosen token with its log-probability (natural log) under the model's own distribution:
    before penalty, temperature and filters.

    The distribution is over the tokens that can be chosen. Rows of the weights that only pad the
    vocabulary have probability 0, other than in transformers: they stand for no token, and their
    logits may differ between a checkpoint's bf16 and int4 forms, which must not change a score.

    `top` has the most likely tokens as (id, text, log-probability), the likeliest first. A `text`
    is the token decoded alone: it may be half a character, and a control token's is empty, or its
    name where the prompt is raw.
    """

    token_id: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...]


@dataclass(frozen=True, slots=True)
class PromptRead:
    """The prompt itself, where `echo` asks for it: before the first new token.

    `logprobs`, where asked for, are those of all its tokens but the first, whose text is
    `first_token`: nothing precedes it that could make it likely.
    """

    text: str
    first_token: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text of the answer: whole characters, never half a stop string.

    `logprobs`, where asked for, are those of the tokens generated since the last delta.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The terminal event of an answer that ended well.

    `logprobs`, where asked for, are those of all `completion_tokens`, also of tokens that ended the
    answer and are not in its text. `cached_prompt_tokens` came from the prefix cache; two answers
    may be equal and differ in them. `stop_string` is the one that ended the answer; "" where none
    did. `queue_seconds` is the time from submission to the first step with it; None where the
    engine does not know it, or the answer ended while it waited.
    """

    reason: FinishReason
    text: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    cached_prompt_tokens: int = field(default=0, compare=False)
    stop_string: str = ""
    queue_seconds: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """The terminal event of an answer that failed. `text` is what had been shown by then."""

    error: BurnishError
    text: str


StreamEvent = PromptRead | TextDelta | Finished | Failed


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A completion whose log-probability under an adapter is wanted."""

    messages: tuple[Message, ...]
    completion: str
    adapter: str | None = None
    complete: bool = True  # whether the end token is scored too


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probabilities (natural log) of a completion's tokens, as `TokenLogprob` has them."""

    token_logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        """Summed log-probability."""
        return sum(self.token_logprobs)

    @property
    def per_token(self) -> float:
        """Mean log-probability of a token; 0 for a completion without tokens."""
        return self.total / max(1, len(self.token_logprobs))


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A text whose embedding under an adapter is wanted, encoded like a raw prompt.

    `user` is as in `GenerationRequest`; `name` is what an error calls the text.
    """

    prompt: RawPrompt
    adapter: str | None = None
    user: str = ""
    name: str = "the text"


@dataclass(frozen=True, slots=True)
class TextEmbedding:
    """The mean of the last hidden states of all tokens, after the model's final norm, scaled to
    length 1; `vector` is (hidden size,) in float32."""

    vector: array[float]
    prompt_tokens: int


class Stream(Protocol):
    """One running answer: an iterator of its events, of which the last one is terminal."""

    def __iter__(self) -> Iterator[StreamEvent]: ...

    @property
    def prompt_tokens(self) -> int:
        """Tokens of its prompt, with the given beginning of the answer."""

    def cancel(self) -> None:
        """Ask for its end within a step; the terminal event still comes."""


class Engine(Protocol):
    """The interface of every engine. All methods may be called from any thread."""

    @property
    def base_digest(self) -> str:
        """Digest of the base weights and tokenizer."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer, in tokens."""

    def submit(self, request: GenerationRequest) -> Stream:
        """Queue an answer. Raises `PromptTooLong`, `Overloaded`, `UnknownId` (adapter)."""

    def submit_many(self, requests: Sequence[GenerationRequest]) -> Sequence[Stream]:
        """Queue answers together, all or none, so that they are always batched alike."""

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[Score]:
        """Log-probabilities of given completions. Raises `PromptTooLong`, `UnknownId`."""

    def embed(self, requests: Sequence[EmbeddingRequest]) -> Sequence[TextEmbedding]:
        """Embeddings of texts. Raises `PromptTooLong`, `UnknownId`, `InvalidInput`."""

    @property
    def thinks_unasked(self) -> bool | None:
        """Return whether it thinks where `thinking` is None; None: it has no such switch."""

    @property
    def call_format(self) -> CallReader:
        """The format of calls in answers to messages that offer tools."""

    def count_prompt_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """Tokens of the rendered prompt, generation prompt included."""

    def request_tokens(self, request: GenerationRequest) -> int:
        """Tokens of a request's prompt. Raises `PromptTooLong`, as `submit` would."""

    def background(self) -> AbstractContextManager[YieldToEngine]:
        """A context for long work beside running streams.

        Call the function that it yields about every millisecond: streams make their steps there.
        The block must not call the engine.
        """

    def load_adapter(self, digest: str, folder: Path) -> None:
        """Load a *verified* PEFT adapter under its digest; running streams go on.

        Raises `InvalidBundle` for one that cannot be run, and `Overloaded` where a soft prompt
        finds no room in the cache.
        """

    def unload_adapter(self, digest: str) -> None:
        """Free an adapter that no stream uses."""

    @property
    def active_streams(self) -> int:
        """Answers running or waiting."""

    @property
    def alive(self) -> bool:
        """Return whether the engine can still make tokens."""

    def close(self) -> None:
        """End every stream with a terminal event and free the model."""


def collect(stream: Stream) -> Finished:
    """Run a stream to its end; raises its error if it failed."""
    for event in stream:
        if isinstance(event, Finished):
            return event
        if isinstance(event, Failed):
            raise event.error
    raise AssertionError("a stream ended without a terminal event")
