"""Batches of the joint objective: rows of one kind in a pack, and their log-probabilities.

A batch's rows of each kind are divided into packs, so that the gradient of each kind can be told
apart. Knows no loss and no optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.models.architecture import Positions
from engine.storage import digest_json
from tuning.batch.forward import layout_tensors
from tuning.batch.plan import Completion, TrainingPrompt, lay_out, pack
from tuning.batch.steps import Pack
from tuning.methods.joint_loss import RowScores
from tuning.methods.joint_rows import ROW_KINDS, RowKind
from tuning.reference_cache import PairLogProbs, PairRow

Row = Mapping[str, Any]
IGNORED = -100  # torch's label of a token that is not scored


def lend_mismatched(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows in which about half of the judgements have an answer to another prompt.

    It is `mismatched_ids`, [] elsewhere: KTO estimates its drift from them (Ethayarajh et al. 2024,
    sec. 4.1), and half of the rows are enough for a mean over several steps. Judgements stand in a
    circle in the order of their digests, and those with an even digest borrow from the next. So a
    new row changes at most one loan, and few reference log-probabilities.
    """
    digests = {
        number: digest_json([list(row["prompt_ids"]), list(row["completion_ids"])])
        for number, row in enumerate(rows)
        if row["kind"] == "judgement"
    }
    circle = sorted(digests, key=lambda number: digests[number])
    lent = {
        borrower: rows[lender]["completion_ids"]
        for borrower, lender in zip(circle, [*circle[1:], *circle[:1]], strict=True)
        if int(digests[borrower][-1], 16) % 2 == 0 and borrower != lender
    }
    return [{**row, "mismatched_ids": lent.get(number, [])} for number, row in enumerate(rows)]


def as_reference_row(row: Row) -> PairRow:
    """A pair, or a judged answer with its mismatched one, as a row of the reference cache."""
    other = "rejected_ids" if row["kind"] == "pair" else "mismatched_ids"
    return {
        "prompt_ids": row["prompt_ids"],
        "chosen_ids": row["completion_ids"],
        "rejected_ids": row[other],
    }


@dataclass(frozen=True, slots=True)
class JointCollator:
    """A data collator: `packs` of rows of one kind, and `mismatched` packs for the drift.

    `positions` are those of the model that computes the packs.
    """

    budget_tokens: int
    pad_token_id: int
    positions: Positions

    def __call__(self, rows: Sequence[Row]) -> dict[str, list[Pack]]:
        """Collate the rows of a batch."""
        borrowed = [
            {**row, "completion_ids": row["mismatched_ids"], "reference": row["other_reference"]}
            for row in rows
            if row["kind"] == "judgement" and row["mismatched_ids"]
        ]
        return {
            "packs": [
                part
                for kind in ROW_KINDS
                for part in self.packs(kind, [row for row in rows if row["kind"] == kind])
            ],
            "mismatched": self.packs("judgement", borrowed),
        }

    def packs(self, kind: RowKind, rows: Sequence[Row]) -> list[Pack]:
        """Packs of rows of one kind, none over the budget unless a single row is."""
        prompts = [_prompt(kind, row) for row in rows]
        members = pack([prompt.tokens for prompt in prompts], self.budget_tokens)
        return [self._pack(kind, [rows[i] for i in m], [prompts[i] for i in m]) for m in members]

    def reference_packs(self, rows: Sequence[PairRow]) -> Iterator[tuple[list[int], Pack]]:
        """Packs of rows of the reference cache, each with the indices of its rows.

        Rows with a second completion are packed as pairs, the others as single answers.
        """
        renamed: list[Row] = [
            {
                "prompt_ids": row["prompt_ids"],
                "completion_ids": row["chosen_ids"],
                "rejected_ids": row["rejected_ids"],
            }
            for row in rows
        ]
        for paired in (True, False):
            kind: RowKind = "pair" if paired else "demonstration"
            chosen = [n for n, row in enumerate(renamed) if bool(row["rejected_ids"]) == paired]
            prompts = [_prompt(kind, renamed[n]) for n in chosen]
            for members in pack([prompt.tokens for prompt in prompts], self.budget_tokens):
                numbers = [chosen[m] for m in members]
                some = [renamed[number] for number in numbers]
                yield numbers, self._pack(kind, some, [prompts[m] for m in members])

    def _pack(self, kind: RowKind, rows: list[Row], prompts: list[TrainingPrompt]) -> Pack:
        labels = [_labels(prompt, side) for side in range(_sides(kind)) for prompt in prompts]
        ids = [_ids(prompt, side) for side in range(_sides(kind)) for prompt in prompts]
        columns = {"reference": "reference", "other_reference": "other_reference"}
        return {
            "kind": kind,
            "layout": layout_tensors(lay_out(prompts, self.positions)),
            "labels": _padded(labels, IGNORED),
            "input_ids": _padded(ids, self.pad_token_id),
            "attention_mask": _padded([[1] * len(each) for each in ids], 0),
            "label": torch.tensor([bool(row.get("label", True)) for row in rows]),
            **{
                name: torch.tensor([float(row.get(column, 0.0)) for row in rows])
                for name, column in columns.items()
            },
        }


def row_scores(model: nn.Module, batch: Pack, *, packed: bool) -> RowScores:
    """Compute the log-probabilities of a pack's rows under the model.

    `packed`: the model accepts layouts (`tuning.batch.forward`); else its rows are padded.
    """
    kind: RowKind = batch["kind"]
    scored = batch["labels"][:, 1:] != IGNORED
    sums = _log_probs(model, batch, packed=packed).float().sum(1).chunk(_sides(kind))
    tokens = scored.sum(1).clamp(min=1).chunk(_sides(kind))
    if kind == "demonstration":
        return RowScores(kind, sums[0], tokens[0])
    if kind == "judgement":
        return RowScores(kind, sums[0], tokens[0], batch["reference"], labels=batch["label"])
    return RowScores(
        kind, sums[0], tokens[0], batch["reference"], sums[1], tokens[1], batch["other_reference"]
    )


@torch.no_grad()
def reference_log_probs(
    model: nn.Module, collator: JointCollator, rows: Sequence[PairRow], *, packed: bool
) -> list[PairLogProbs]:
    """Summed log-probabilities of both sides of each row under the model as it is; 0 for none."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    found: dict[int, PairLogProbs] = {}
    for members, batch in collator.reference_packs(rows):
        scores = row_scores(model, to_device(batch, device), packed=packed)
        first = scores.completion.tolist()
        second = [0.0] * len(first) if scores.rejected is None else scores.rejected.tolist()
        found |= zip(members, zip(first, second, strict=True), strict=True)
    model.train(was_training)
    return [found[number] for number in range(len(rows))]


def to_device(batch: Pack, device: torch.device) -> Pack:
    """A pack with its tensors on a device."""
    moved: Pack = {}
    for name, value in batch.items():
        if isinstance(value, dict):
            moved[name] = to_device(value, device)
        else:
            moved[name] = value.to(device) if isinstance(value, Tensor) else value
    return moved


def _log_probs(model: nn.Module, batch: Pack, *, packed: bool) -> Tensor:
    """Log-probabilities of the scored tokens, (rows, tokens - 1), 0 elsewhere."""
    if packed:
        found = model(layout=batch["layout"], labels=batch["labels"], fused_lm_head=True)
        grid: Tensor = found.log_probs
        return grid
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    # Virtual tokens, if any, stand before the row's own
    logits = logits[:, -batch["labels"].shape[1] : -1].float()
    targets = batch["labels"][:, 1:]
    own: Tensor = logits.gather(2, targets.clamp(min=0)[..., None]).squeeze(2) - logits.logsumexp(2)
    return own.masked_fill(targets == IGNORED, 0.0)


def _sides(kind: RowKind) -> int:
    return 2 if kind == "pair" else 1


def _prompt(kind: RowKind, row: Row) -> TrainingPrompt:
    columns = ("completion_ids", "rejected_ids")[: _sides(kind)]
    completions = tuple(Completion(tuple(row[c]), (True,) * len(row[c])) for c in columns)
    return TrainingPrompt(tuple(row["prompt_ids"]), completions)


def _ids(prompt: TrainingPrompt, side: int) -> list[int]:
    return [*prompt.ids, *prompt.completions[side].ids]


def _labels(prompt: TrainingPrompt, side: int) -> list[int]:
    return [*[IGNORED] * len(prompt.ids), *prompt.completions[side].ids]


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    padded: Tensor = nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)
    return padded
