"""The format `peft`: the adapter as peft's `save_pretrained` writes it, for peft and vLLM.

It names the published checkpoint of the base model, where that is known, so that
`AutoPeftModelForCausalLM.from_pretrained` finds it. Of a model of the ChatGLM family the tensors
have the published names.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from deploy.export.verified import VerifiedRelease
from engine.adapters.files import CONFIG, WEIGHTS

QUANTIZATIONS: tuple[str, ...] = ()


def refusal(release: VerifiedRelease) -> str | None:
    """See `ExportFormat`."""
    return f"a {release.kind} is no adapter (use merged)" if release.is_whole else None


def write(release: VerifiedRelease, folder: Path, quantization: str) -> None:
    """See `ExportFormat`."""
    config = {**release.config, "base_model_name_or_path": release.base_name}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.copyfile(release.folder / WEIGHTS, folder / WEIGHTS)
