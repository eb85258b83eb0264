"""Render a snapshot's examples to token ids. Knows no trainer.

Examples that are too long are left out, never truncated, and their conversations are named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from engine.messages import Message
from engine.prompts.interface import ChatRenderer
from engine.prompts.reasoning import join_reasoning
from feedback_store.ai_feedback.ai_pairs import AiPair
from feedback_store.examples.types import (
    Demonstration,
    Pair,
    Side,
    TrainingExample,
    Unpaired,
    shared_thinking,
)
from feedback_store.snapshots.snapshot import Snapshot
from tuning.methods.pretrain import PretrainRecipe
from tuning.recipe import Recipe
from tuning.recipe_sections import ReplayRecipe
from tuning.replay import read_replay
from tuning.rows import Ids, TokenizedAnswers, TokenizedPairs, TrainingData
from tuning.text_blocks import read_blocks


def read_training_data(
    renderer: ChatRenderer,
    snapshot: Snapshot,
    recipe: Recipe,
    ai_pairs: Sequence[AiPair] = (),
    *,
    without: Collection[str] = (),
) -> TrainingData:
    """Read what the recipe's stages need of a snapshot's training side, the AI labels and texts.

    Conversations in `without` are left out. Raises what `tuning.replay.read_replay` and
    `tuning.text_blocks.read_blocks` raise.
    """
    limit, thoughts = recipe.max_sequence_tokens, snapshot.manifest["thoughts_in_loss"]
    train = snapshot.train.without(without)
    ai_pairs = [each for each in ai_pairs if each.origin.conversation_id not in without]
    kinds = {kind for method in recipe.stages.values() for kind in method.example_kinds}
    demonstrations, unpaired = (
        tokenize_answers(renderer, examples, limit, thoughts_in_loss=thoughts)
        for examples in (
            train.demonstrations if "demonstrations" in kinds else (),
            train.unpaired if "unpaired" in kinds else (),
        )
    )
    data = TrainingData(
        tokenize(renderer, train.pairs, limit, thoughts_in_loss=thoughts),
        demonstrations,
        unpaired,
        sft_answers=recipe.sft.answers,
        ai_pairs=tokenize(renderer, ai_pairs, limit, thoughts_in_loss=thoughts),
        max_sequence_tokens=limit,
        blocks=read_blocks(renderer, recipe.pretrain),
        distinct_prompts=lambda most: distinct_prompts(renderer, train.pairs, most)[0],
    )
    replay = [
        _rendered(renderer, item.prompt, (item.answer,), thoughts_in_loss=True)
        for item in read_replay(recipe.replay, len(data.answers), recipe.seed)
    ]
    return replace(
        data,
        replay=[_answer_row(ids) for ids in replay if _tokens(ids) <= limit],
        replay_too_long=sum(_tokens(ids) > limit for ids in replay),
    )


def read_slice(
    renderer: ChatRenderer, snapshot: Snapshot, recipe: Recipe, conversations: Collection[str]
) -> TrainingData:
    """Read the people's examples of some conversations of a snapshot's training side."""
    others = snapshot.train.conversations - set(conversations)
    alone = replace(recipe, replay=ReplayRecipe(), pretrain=PretrainRecipe())
    return read_training_data(renderer, snapshot, alone, without=others)


def distinct_prompts(
    renderer: ChatRenderer, pairs: Sequence[Pair], max_prompt_tokens: int
) -> tuple[list[Ids], list[str]]:
    """Each prompt of the pairs once, as ids, and the conversations whose prompts are too long."""
    kept: dict[tuple[int, ...], None] = {}
    too_long: dict[str, None] = {}
    for pair in pairs:
        ids = renderer.prompt(pair.prompt, thinking=shared_thinking(pair.sides))
        if len(ids) > max_prompt_tokens:
            too_long[pair.origin.conversation_id] = None
        else:
            kept[ids] = None
    return [list(ids) for ids in kept], list(too_long)


def tokenize(
    renderer: ChatRenderer,
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
    renderer: ChatRenderer,
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
    renderer: ChatRenderer,
    examples: Iterable[TrainingExample | AiPair],
    limit: int,
    thoughts_in_loss: bool,
) -> tuple[list[tuple[TrainingExample | AiPair, list[Ids]]], tuple[str, ...]]:
    """The examples within the limit, with ids of prompt and sides; the others' conversations."""
    kept, too_long = [], []
    for example in examples:
        ids = _rendered(renderer, example.prompt, example.sides, thoughts_in_loss)
        if _tokens(ids) > limit:
            too_long.append(example.origin.conversation_id)
        else:
            kept.append((example, ids))
    return kept, tuple(too_long)


def _rendered(
    renderer: ChatRenderer,
    messages: tuple[Message, ...],
    sides: Sequence[Side],
    thoughts_in_loss: bool,
) -> list[Ids]:
    """Ids of the prompt, then of each completion. Sides share their thought if it is not learnt.

    Thoughts are switched on or off in the prompt as they were when the sides were made.
    """
    thinking = shared_thinking(sides)
    prompt, opening = renderer.opened_prompt(messages, thinking=thinking)
    texts = [side.full_text for side in sides]
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
    """Number of tokens of the prompt with its longest completion."""
    prompt, *completions = ids
    return len(prompt) + max(map(len, completions))


def _answer_row(ids: list[Ids]) -> dict[str, Ids]:
    prompt, completion = ids
    return {"prompt_ids": prompt, "completion_ids": completion}
