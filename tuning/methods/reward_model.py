"""A reward model: how good people would find an answer, as one number (Ouyang et al. 2022, eq. 1).

The base model with a LoRA adapter and a linear head in place of its output head, trained on pairs
so that the chosen answer gets the higher number. It scores, it is never served: it is kept in a
folder of its own, content-addressed, and is no bundle.

Supports: whatever transformers has a sequence-classification model for.
Assumes: rows already rendered by the one renderer (`tuning.dataset`).
Raises: whatever trl's RewardTrainer raises.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase, set_seed
from trl import RewardConfig, RewardTrainer

from engine.adapters.files import CONFIG, WEIGHTS, read_adapter_config, write_adapter_config
from engine.errors import EngineFailure, InvalidInput
from engine.hardware import detect
from engine.messages import Message
from engine.models.catalogue import BaseModel, linear_shapes
from engine.prompts.load import load_template_renderer
from engine.prompts.render import Renderer
from engine.storage import folder_of, publish, read_manifest, verify, write_atomically
from feedback_store.examples.types import Pair
from feedback_store.snapshots.snapshot import Snapshot
from tuning.dataset import tokenize
from tuning.methods.reward import RewardRecipe
from tuning.methods.stage import Reward, Stage
from tuning.recipe import Recipe
from tuning.reference_cache import PairRow

REWARD_FORMAT = "burnish-reward/1"
REWARD_FILES = {CONFIG, WEIGHTS}


class _Head(nn.Linear):
    """The score, computed in fp32: in bf16 most of the optimizer's steps would round to nothing."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., hidden size) to (..., 1)."""
        return super().forward(hidden.float())


def fresh_reward_model(base: BaseModel, recipe: RewardRecipe) -> PeftModel:
    """The base model with a fresh adapter on each linear layer and a random head."""
    targets = sorted({name.rsplit(".", 1)[-1] for name in linear_shapes(base.folder)})
    return get_peft_model(
        _without_adapter(base),
        LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            target_modules=targets,
            task_type="SEQ_CLS",
            modules_to_save=["score"],
        ),
    )


def train_reward(
    model: PeftModel, rows: Sequence[PairRow], recipe: RewardRecipe, stage: Stage
) -> None:
    """Train the adapter and the head in place on rows of prompt_ids, chosen_ids, rejected_ids."""
    trainer = make_reward_trainer(model, rows, recipe, stage)
    trainer.train(resume_from_checkpoint=stage.checkpoint)


def make_reward_trainer(
    model: PeftModel, rows: Sequence[PairRow], recipe: RewardRecipe, stage: Stage
) -> RewardTrainer:
    """trl's trainer; the loss is -log sigmoid(score of chosen - score of rejected)."""
    tokenizer = copy.deepcopy(stage.tokenizer)  # other stages use it, too
    tokenizer.pad_token = _padding(tokenizer)
    return RewardTrainer(
        model=model,
        args=RewardConfig(
            **stage.arguments(
                epochs=recipe.epochs, learning_rate=recipe.learning_rate, batch=recipe.batch_pairs
            ),
            max_length=None,  # too long pairs were left out, by name, when they were rendered
        ),
        train_dataset=Dataset.from_list([_whole(row) for row in rows]),
        processing_class=tokenizer,
        callbacks=[stage.callback],
    )


def publish_reward(root: Path, model: PeftModel, base: BaseModel, about: Mapping[str, Any]) -> str:
    """Publish a trained reward model; returns its digest. `about` goes into the manifest."""

    def fill(folder: Path) -> dict[str, Any]:
        model.save_pretrained(str(folder), selected_adapters=["default"])
        (folder / "README.md").unlink(missing_ok=True)
        write_adapter_config(folder, read_adapter_config(folder), base.name)
        return {"format": REWARD_FORMAT, "base_digest": base.digest, **about}

    return publish(root, fill)


def make_reward_model(
    base: BaseModel,
    snapshot: Snapshot,
    recipe: Recipe,
    rows: Sequence[PairRow],
    stage: Stage,
    root: Path,
) -> dict[str, Any]:
    """Train and publish a reward model, unless this run did already.

    Returns its digest as `reward_model` and its accuracy on held-out pairs. Raises `InvalidInput`
    without pairs.
    """
    if not rows:
        raise InvalidInput("nothing to train on: reward needs preference pairs")
    finished = stage.folder / "finished.json"
    if finished.is_file():
        about: dict[str, Any] = json.loads(finished.read_text("utf-8"))
        return about
    set_seed(recipe.seed)
    model = fresh_reward_model(base, recipe.reward)
    train_reward(model, rows, recipe.reward, stage)
    about = _accuracy(
        model, load_template_renderer(base.folder), snapshot, recipe.max_sequence_tokens
    )
    digest = publish_reward(root, model, base, {"snapshot": snapshot.digest, **about})
    about = {"reward_model": digest, **about}
    write_atomically(finished, json.dumps(about).encode())
    return about


class RewardModel:
    """Scores answers. The higher the better; only differences for one prompt mean anything."""

    def __init__(self, model: PeftModel, renderer: Renderer) -> None:
        self._model = model.eval()
        self._renderer = renderer

    @classmethod
    def open(cls, root: Path, digest: str, base: BaseModel) -> RewardModel:
        """Load a published one; raises `InvalidInput` with every problem found before loading."""
        problems = _problems(root, digest, base)
        if problems:
            raise InvalidInput(f"reward model {digest} refused: " + "; ".join(problems))
        folder = folder_of(root, digest)
        model = PeftModel.from_pretrained(_without_adapter(base), str(folder))
        return cls(model, load_template_renderer(base.folder))

    def score(self, prompt: Sequence[Message], answer: str, *, complete: bool = True) -> float:
        """The score of an answer; `complete` says whether the model ended it itself."""
        rendered = self._renderer.pair(prompt, answer, complete=complete)
        return self.score_ids(rendered.input_ids)

    @torch.no_grad()
    def score_ids(self, input_ids: Sequence[int]) -> float:
        """The score of a prompt and its completion; raises `EngineFailure` for NaN or infinity.

        Read at the last token. One row at a time: without padding, there is nothing to confuse.
        """
        ids = torch.tensor([list(input_ids)], device=self._model.device)
        logits = self._model(input_ids=ids).logits  # (1, 1)
        score = float(logits[0, 0])
        if not abs(score) < float("inf"):
            raise EngineFailure(f"the reward model's score is {score}")
        return score


def heldout_accuracy(
    score: Reward, rows: Sequence[PairRow], pairs: Sequence[Pair]
) -> dict[str, float | int | None]:
    """The share of pairs whose chosen answer scores higher, and of those where it is longer.

    `rows` are scored, `pairs` measured in characters; ties count half. None where there are none.
    A reward model that does not beat "longer wins" has learnt to count.
    """
    scored = [tuple(map(score, _whole(row).values())) for row in rows]
    lengths = [(len(pair.chosen.full_text), len(pair.rejected.full_text)) for pair in pairs]
    return {
        "heldout_pairs": len(rows),
        "heldout_accuracy": _wins(scored),
        "longer_wins_accuracy": _wins(lengths),
    }


def _accuracy(
    model: PeftModel, renderer: Renderer, snapshot: Snapshot, limit: int
) -> dict[str, Any]:
    rendered = [(pair, tokenize(renderer, [pair], limit)) for pair in snapshot.heldout.pairs]
    fitting = [(pair, one.rows[0]) for pair, one in rendered if one.rows]
    score = RewardModel(model, renderer).score_ids
    return heldout_accuracy(score, [row for _, row in fitting], [pair for pair, _ in fitting])


def _wins(both: Sequence[tuple[float, ...]]) -> float | None:
    wins = [0.5 * (chosen >= rejected) + 0.5 * (chosen > rejected) for chosen, rejected in both]
    return sum(wins) / len(wins) if wins else None


def _without_adapter(base: BaseModel) -> nn.Module:
    """The base model with a random head. It has no padding token: rows are read to their end."""
    hardware = detect()
    model = AutoModelForSequenceClassification.from_pretrained(
        base.folder,
        num_labels=1,
        dtype=hardware.dtype,
        device_map=hardware.device,
        use_safetensors=True,
    )
    head = _Head(model.score.in_features, 1, bias=False, device=hardware.device)
    nn.init.normal_(head.weight, std=model.config.get_text_config().initializer_range)
    model.score = head
    model.config.get_text_config().pad_token_id = None
    return model  # type: ignore[no-any-return]


def _padding(tokenizer: PreTrainedTokenizerBase) -> str:
    """A padding token that ends no answer.

    transformers reads the score at the last token that is not padding. Where padding and end token
    are the same, as in many checkpoints, it would miss whether the answer was ended.
    """
    candidates = [tokenizer.pad_token, *tokenizer.all_special_tokens]
    for token in candidates:
        if token is not None and token != tokenizer.eos_token:
            return str(token)
    raise InvalidInput("the tokenizer has no special token beside the one that ends an answer")


def _whole(row: PairRow) -> dict[str, list[int]]:
    """Prompt and completion in one, in trl's columns."""
    prompt = list(row["prompt_ids"])
    return {name: prompt + list(row[name]) for name in ("chosen_ids", "rejected_ids")}


def _problems(root: Path, digest: str, base: BaseModel) -> list[str]:
    folder = folder_of(root, digest)
    problems = verify(root, digest)
    if problems:
        return problems
    manifest = read_manifest(folder)
    if manifest.get("format") != REWARD_FORMAT:
        problems.append(f"format is {manifest.get('format')!r}, not {REWARD_FORMAT!r}")
    if manifest.get("base_digest") != base.digest:
        problems.append("base_digest: trained for another base model")
    if manifest["files"].keys() != REWARD_FILES:
        problems.append(f"files: {', '.join(sorted(REWARD_FILES))} are wanted and nothing else")
    return problems
