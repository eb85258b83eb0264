"""Exports in a process of its own: `python -m ... MODEL BUNDLES DIGEST FORMAT TARGET`.

Prints the refusal as JSON, `null` where there is none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from deploy.export.formats import export_release
from engine.errors import BurnishError
from engine.models.catalogue import resolve


def main() -> None:
    """Export once."""
    model, bundles, digest, export_format, target = sys.argv[1:]
    base = resolve(model, Path(bundles).with_name("cache"))
    error = None
    try:
        export_release(base, Path(bundles), digest, Path(target), export_format)
    except BurnishError as refused:
        error = f"{type(refused).__name__}: {refused}"
    sys.stdout.write(f"\n{json.dumps(error)}\n")


if __name__ == "__main__":
    main()
