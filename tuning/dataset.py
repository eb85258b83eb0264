"""Snapshot rows to token ids, through the one renderer. Knows no trainer.

What is too long is left out whole, never cut, and its conversation is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from engine.messages import Message
from engine.prompts.reasoning import join_reasoning
from engine.prompts.render import Renderer
from feedback_store.ai_feedback.ai_pairs import AiPair
from feedback_store.examples.types import Demonstration, Pair, Side, TrainingExample, Unpaired
from feedback_store.snapshots.snapshot import Snapshot
from tuning.recipe import Recipe, SftAnswers
from tuning.replay import read_replay

Ids = list[int]


@dataclass(frozen=True, slots=True)
class TokenizedPairs:
    """Pairs as ids. `too_long` and `other_thoughts` name the conversations whose pairs were left
    out, because of their length or because their sides do not share a thought."""

    rows: tuple[dict[str, Ids], ...]
    too_long: tuple[str, ...]
    other_thoughts: tuple[str, ...] = ()

    def for_dpo(self) -> Dataset:
        """Columns prompt_ids, chosen_ids, rejected_ids: what trl's preference collator reads."""
        return Dataset.from_list(list(self.rows))

    def for_sft(self) -> Dataset:
        """Columns input_ids, completion_mask: prompt and chosen answer, loss on the answer."""
        return _sft_dataset(self.chosen)

    @property
    def chosen(self) -> list[dict[str, Ids]]:
        """The chosen answers as rows of their own: prompt_ids, completion_ids."""
        return [
            {"prompt_ids": row["prompt_ids"], "completion_ids": row["chosen_ids"]}
            for row in self.rows
        ]


@dataclass(frozen=True, slots=True)
class TokenizedAnswers:
    """Single answers as ids: rows of prompt_ids, completion_ids and, where judged, label."""

    rows: tuple[dict[str, Any], ...] = ()
    too_long: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingData:
    """All that the stages of one run read."""

    pairs: TokenizedPairs
    demonstrations: TokenizedAnswers
    unpaired: TokenizedAnswers
    sft_answers: SftAnswers
    replay: Sequence[dict[str, Ids]] = ()
    replay_too_long: int = 0
    ai_pairs: TokenizedPairs = TokenizedPairs((), ())  # for the preference losses alone

    def for_sft(self) -> Dataset:
        """Columns input_ids, completion_mask: each answer once, then the replayed ones."""
        return _sft_dataset([*self.answers, *self.replay])

    def for_dpo(self) -> Dataset:
        """Columns prompt_ids, chosen_ids, rejected_ids; ORPO reads them too."""
        return Dataset.from_list([*self.pairs.rows, *self.ai_pairs.rows])

    def for_kto(self) -> Dataset:
        """Columns prompt_ids, completion_ids, label."""
        return Dataset.from_list(list(self.unpaired.rows))

    @property
    def answers(self) -> list[dict[str, Ids]]:
        """The snapshot's answers for SFT, each once: a correction is chosen and demonstrated."""
        return _answers(self.pairs, self.demonstrations, self.sft_answers)

    @property
    def too_long(self) -> list[str]:
        """The conversation of each example that was left out because of its length."""
        return [
            *self.pairs.too_long,
            *self.demonstrations.too_long,
            *self.unpaired.too_long,
            *self.ai_pairs.too_long,
        ]

    @property
    def good_and_bad(self) -> tuple[int, int]:
        """How many lone judgements say good, and how many bad."""
        good = sum(row["label"] for row in self.unpaired.rows)
        return good, len(self.unpaired.rows) - good


def read_training_data(
    renderer: Renderer, snapshot: Snapshot, recipe: Recipe, ai_pairs: Sequence[AiPair] = ()
) -> TrainingData:
    """The training side of a snapshot, as far as the recipe's stages read it, and AI labels.

    Raises what `tuning.replay.read_replay` raises.
    """
    limit, thoughts = recipe.max_sequence_tokens, snapshot.manifest["thoughts_in_loss"]
    train = snapshot.train
    demonstrated = recipe.sft.epochs > 0 and recipe.sft.answers != "chosen"
    pairs = tokenize(renderer, train.pairs, limit, thoughts_in_loss=thoughts)
    demonstrations, unpaired = (
        tokenize_answers(renderer, wanted, limit, thoughts_in_loss=thoughts)
        for wanted in (
            train.demonstrations if demonstrated else (),
            train.unpaired if recipe.kto.epochs > 0 else (),
        )
    )
    answers = _answers(pairs, demonstrations, recipe.sft.answers)
    replay = [
        _rendered(renderer, item.prompt, (item.answer,), thoughts_in_loss=True)
        for item in read_replay(recipe.replay, len(answers), recipe.seed)
    ]
    return TrainingData(
        pairs,
        demonstrations,
        unpaired,
        recipe.sft.answers,
        replay=[_answer_row(ids) for ids in replay if _tokens(ids) <= limit],
        replay_too_long=sum(_tokens(ids) > limit for ids in replay),
        ai_pairs=tokenize(renderer, ai_pairs, limit, thoughts_in_loss=thoughts),
    )


def tokenize(
    renderer: Renderer,
    pairs: Sequence[Pair | AiPair],
    max_sequence_tokens: int,
    *,
    thoughts_in_loss: bool = True,
) -> TokenizedPairs:
    """Render each pair once.

    Without `thoughts_in_loss` the thought of an answer is read as part of the
    prompt and not learnt. Both sides must then share it, as a correction and its original do; pairs
    that do not are left out.
    """
    alike: list[Pair | AiPair] = []
    other: list[str] = []
    for pair in pairs:
        if thoughts_in_loss or pair.chosen.thought == pair.rejected.thought:
            alike.append(pair)
        else:
            other.append(pair.origin.conversation_id)
    kept, too_long = _fitting(renderer, alike, max_sequence_tokens, thoughts_in_loss)
    rows = tuple(
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        for _, (prompt, chosen, rejected) in kept
    )
    return TokenizedPairs(rows, too_long, tuple(other))


def tokenize_answers(
    renderer: Renderer,
    examples: Sequence[Demonstration | Unpaired],
    max_sequence_tokens: int,
    *,
    thoughts_in_loss: bool = True,
) -> TokenizedAnswers:
    """Render each answer once; that of a lone judgement keeps its label."""
    kept, too_long = _fitting(renderer, examples, max_sequence_tokens, thoughts_in_loss)
    rows: list[dict[str, Any]] = []
    for example, ids in kept:
        label = {"label": example.label} if isinstance(example, Unpaired) else {}
        rows.append({**_answer_row(ids), **label})
    return TokenizedAnswers(tuple(rows), too_long)


def _fitting(
    renderer: Renderer,
    examples: Iterable[TrainingExample | AiPair],
    limit: int,
    thoughts_in_loss: bool,
) -> tuple[list[tuple[TrainingExample | AiPair, list[Ids]]], tuple[str, ...]]:
    """Each example with the ids of its prompt and of each side; the conversations of the rest."""
    kept, too_long = [], []
    for example in examples:
        ids = _rendered(renderer, example.prompt, example.sides, thoughts_in_loss)
        if _tokens(ids) > limit:
            too_long.append(example.origin.conversation_id)
        else:
            kept.append((example, ids))
    return kept, tuple(too_long)


def _rendered(
    renderer: Renderer,
    messages: tuple[Message, ...],
    sides: Sequence[Side],
    thoughts_in_loss: bool,
) -> list[Ids]:
    """Ids of the prompt, then of each completion. Sides share their thought if it is not learnt."""
    prompt = renderer.prompt(messages)
    texts = [side.full_text for side in sides]
    opening = renderer.opening(messages)
    thought = sides[0].thought
    if thought and not thoughts_in_loss:
        # The blank before the answer goes with the answer, as in the tokens the model makes
        lead = join_reasoning(thought, "").rstrip()
        prompt += renderer.completion(lead, complete=False, opening=opening)
        texts = [text.removeprefix(lead) for text in texts]
        opening = ""  # the lead has gone on from it
    completions = (
        renderer.completion(text, complete=side.complete, opening=opening)
        for text, side in zip(texts, sides, strict=True)
    )
    return [list(prompt), *map(list, completions)]


def _tokens(ids: list[Ids]) -> int:
    """Of the prompt with its longest completion."""
    prompt, *completions = ids
    return len(prompt) + max(map(len, completions))


def _answer_row(ids: list[Ids]) -> dict[str, Ids]:
    prompt, completion = ids
    return {"prompt_ids": prompt, "completion_ids": completion}


def _answers(
    pairs: TokenizedPairs, demonstrations: TokenizedAnswers, wanted: SftAnswers
) -> list[dict[str, Ids]]:
    rows = {
        "chosen": pairs.chosen,
        "demonstrations": list(demonstrations.rows),
        "both": [*pairs.chosen, *demonstrations.rows],
    }[wanted]
    once = {(tuple(row["prompt_ids"]), tuple(row["completion_ids"])): row for row in rows}
    return list(once.values())


def _sft_dataset(rows: Sequence[dict[str, Ids]]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "input_ids": row["prompt_ids"] + row["completion_ids"],
                "completion_mask": [0] * len(row["prompt_ids"]) + [1] * len(row["completion_ids"]),
            }
            for row in rows
        ]
    )
