"""How a tuning run looks on the terminal."""

from __future__ import annotations

import sys
from typing import Any

from app.service import Workspace


def print_step(event: dict[str, Any]) -> None:
    """One line per progress event, on standard error."""
    if event["event"] == "data":
        line = f"{event['pairs']} pairs to train on, {event['too_long']} too long and left out"
    elif event["event"] == "step":
        extra = f"  accuracy {event['reward_accuracy']:.2f}" if "reward_accuracy" in event else ""
        line = (
            f"{event['stage']}  step {event['step']}/{event['steps']}  loss {event['loss']:.3f}"
            f"{extra}  {event['eta_seconds']:.0f} s left"
        )
    else:
        return
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def show_pairs(workspace: Workspace, snapshot: str, count: int) -> None:
    """Print pairs as the trainer sees them: the tokens the loss covers stand out."""
    from rich.console import Console
    from rich.text import Text

    from engine.models.catalogue import load_tokenizer
    from engine.prompts.render import Renderer
    from feedback_store.snapshot import open_snapshot

    tokenizer = load_tokenizer(workspace.base.folder)
    renderer = Renderer(tokenizer)
    console = Console()
    for pair in open_snapshot(workspace.home / "snapshots", snapshot).train.pairs[:count]:
        for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            rendered = renderer.pair(pair.prompt, side.full_text, complete=side.complete)
            line = Text(f"{name}: ", style="bold")
            for token_id, in_loss in zip(rendered.input_ids, rendered.loss_mask, strict=True):
                line.append(tokenizer.decode([token_id]), "black on green" if in_loss else "dim")
                line.append("|", "dim")
            console.print(line)
