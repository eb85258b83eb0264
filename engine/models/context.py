"""The context length in a configuration of transformers, whatever its field is called."""

from __future__ import annotations

from typing import Any

# The first of these that is set counts; transformers maps most other names to the first
CONTEXT_FIELDS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
)
# For models without a limit of their own (ALiBi): the length that BLOOM and MPT were trained on
UNLIMITED_TOKENS = 2048


def context_tokens(config: Any) -> int:
    """The longest prompt plus answer, from a transformers configuration."""
    values = (getattr(config, name, None) for name in CONTEXT_FIELDS)
    return next(
        (value for value in values if isinstance(value, int) and value > 0), UNLIMITED_TOKENS
    )
