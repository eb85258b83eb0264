"""Publish an evaluation: `evaluation.json` and a page that shows it, in an immutable folder.

Knows the gate's verdict as a document to pass on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.storage import canonical_json, publish
from tuning.evaluation.evaluate import Evaluation
from tuning.evaluation.summary import summarise

EVALUATION_FORMAT = "burnish-evaluation/1"
JSON_FILE, PAGE_FILE = "evaluation.json", "evaluation.html"


def write_report(
    root: Path, evidence: Evaluation, about: Mapping[str, str | None], verdict: Mapping[str, Any]
) -> str:
    """Publish an evaluation under `root`; returns its digest.

    `about` names what was judged (digests of candidate, incumbent, base and snapshot); `verdict` is
    the gate's report. Neither holds text or people, so the folder needs no forgetting.
    Raises `StorageFull` when the disk is.
    """
    from tuning.evaluation.page import render_page  # plotly is slow to import

    document = {
        "format": EVALUATION_FORMAT,
        **about,
        "verdict": verdict,
        "summary": summarise(evidence),
        "evidence": evidence.as_dict(),
    }

    def fill(folder: Path) -> dict[str, Any]:
        (folder / JSON_FILE).write_bytes(canonical_json(document))
        (folder / PAGE_FILE).write_text(render_page(document), "utf-8")
        return {"format": EVALUATION_FORMAT, **about}

    return publish(root, fill)
