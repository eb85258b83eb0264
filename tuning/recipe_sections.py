"""The recipe's sections that are no training methods: adapter, replay, AI labels, search.

Each field's annotation says what it does, for a form and for messages (`tuning.recipe_form`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from engine.adapters.lora_config import MAX_RANK
from engine.adapters.soft_prompt import MAX_VIRTUAL_TOKENS
from engine.storage import DIGEST
from tuning.methods.base import TrainedKind


@dataclass(frozen=True, slots=True)
class AdapterRecipe:
    """LoRA (Hu et al. 2021) on every linear layer but the output head, or virtual tokens before the
    prompt (`tuning.soft_prompt`).

    `rank_stabilised`: rsLoRA. `weight_decomposed`: DoRA, for export only. `virtual_tokens` is for
    the kinds that are not `lora`, the others for `lora`. Kind `full` trains all weights instead
    (`tuning.whole_model`). `start`: the bundle whose adapter training
    continues, with that adapter's rank and scaling (`tuning.start_adapter`).
    """

    rank: Annotated[int, "size of the adapter: more can hold more, and takes more memory"] = 16
    alpha: Annotated[int, "scaling of the adapter, usually twice its rank"] = 32
    dropout: Annotated[float, "share of the adapter's inputs that a step leaves out"] = 0.0
    rank_stabilised: Annotated[bool, "scale by the root of the rank (rsLoRA), for large ranks"] = (
        False
    )
    weight_decomposed: Annotated[bool, "learn direction and size apart (DoRA), for export only"] = (
        False
    )
    kind: Annotated[
        TrainedKind, "lora, or virtual tokens before the prompt, or full: all weights"
    ] = "lora"
    virtual_tokens: Annotated[int, "number of virtual tokens, for the kinds that have them"] = 20
    start: Annotated[str | None, "id of the bundle to go on from; none is a fresh adapter"] = None

    def rules(self) -> Mapping[str, bool]:
        """Each rule as a message without the section's name, and whether it holds."""
        return {
            f"rank must lie in 1..{MAX_RANK}": 1 <= self.rank <= MAX_RANK,
            f"virtual_tokens must lie in 1..{MAX_VIRTUAL_TOKENS}": (
                1 <= self.virtual_tokens <= MAX_VIRTUAL_TOKENS
            ),
            "rank_stabilised and adapter.weight_decomposed need adapter.kind lora": (
                self.kind == "lora" or not (self.rank_stabilised or self.weight_decomposed)
            ),
            "start must be the whole id of a bundle, sha256: and 64 digits": (
                self.start is None or DIGEST.fullmatch(self.start) is not None
            ),
            "start needs adapter.kind lora, and no adapter.weight_decomposed": (
                self.start is None or (self.kind == "lora" and not self.weight_decomposed)
            ),
            "alpha must be at least 1": self.alpha >= 1,
            "dropout must lie in [0, 1)": 0 <= self.dropout < 1,
        }


@dataclass(frozen=True, slots=True)
class ReplayRecipe:
    """Instruction data of another source, as a share of what an epoch of SFT reads.

    `file` is any file that `burnish feedback import` reads. `digest` is the file's own; reading
    the recipe fills it in, and a file that has changed since is refused.
    """

    file: Annotated[str | None, "other instruction data to mix in, against forgetting"] = None
    share: Annotated[float, "part of it in what an epoch reads"] = 0.1
    digest: Annotated[str | None, "digest of that file, filled in by itself"] = None

    def rules(self) -> Mapping[str, bool]:
        """Each rule as a message without the section's name, and whether it holds."""
        return {"share must lie in (0, 1)": 0 < self.share < 1}


@dataclass(frozen=True, slots=True)
class RlaifRecipe:
    """Pairs that an AI judge labelled, beside those of people in DPO and ORPO.

    `labels` is the id of a set of labels; null leaves them out. `share` is the part of them that is
    used: each has that chance of being drawn, so that in expectation it weighs `share` times what a
    person's pair does (`tuning.ai_labels`).
    """

    labels: Annotated[str | None, "id of the pairs that an AI judged; none leaves them out"] = None
    share: Annotated[float, "part of those pairs that is used"] = 0.25

    def rules(self) -> Mapping[str, bool]:
        """Each rule as a message without the section's name, and whether it holds."""
        return {"share must lie in (0, 1)": 0 < self.share < 1}


@dataclass(frozen=True, slots=True)
class SearchRecipe:
    """A search of the joint method's learning rate and length, by successive halving.

    `rates` of them, from `lowest` to `highest`, are tried; 0 leaves the search out. `slice_share`
    of the training conversations, at most `most_conversations`, are held back to choose by; with
    fewer than `least_conversations` of them there is no search (`tuning.search`).
    """

    rates: Annotated[
        int, "learning rates to try before the best is chosen; 0 leaves the search out"
    ] = 0
    lowest: Annotated[float, "lowest learning rate to try"] = 2.5e-5
    highest: Annotated[float, "highest learning rate to try"] = 2e-4
    slice_share: Annotated[float, "share of the conversations held back to choose by"] = 0.15
    least_conversations: Annotated[int, "with fewer held back there is no search"] = 6
    most_conversations: Annotated[int, "most conversations held back"] = 64

    def rules(self) -> Mapping[str, bool]:
        """Each rule as a message without the section's name, and whether it holds."""
        return {
            "rates must lie in 0..8": 0 <= self.rates <= 8,
            "lowest must lie in (0, highest], and search.highest below 1": (
                0 < self.lowest <= self.highest < 1
            ),
            "slice_share must lie in (0, 0.5]": 0 < self.slice_share <= 0.5,
            "least_conversations must lie in 2..most_conversations": (
                2 <= self.least_conversations <= self.most_conversations
            ),
        }
