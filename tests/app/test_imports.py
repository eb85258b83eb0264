"""Commands that need no model import no library of models, so that they answer within a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.models.catalogue import BaseModel
from tests.conftest import share_kernels

SLOW = {"torch", "transformers", "gradio", "langchain_core", "scipy", "pandas", "fastapi", "httpx"}
MIGRATING = "alembic"  # a home needs it when it is made or comes from an older Burnish
WITHOUT_A_MODEL = [
    ["feedback", "stats"],
    ["feedback", "pairs"],
    ["feedback", "alerts"],
    ["feedback", "consent", "ann", "--no"],
    ["feedback", "examples", "list"],
    ["release", "list"],
    ["loop", "status"],
    ["tune", "--list"],
    ["user", "list"],
    ["key", "list"],
    ["audit"],
    ["data", "list"],
    ["documents", "list"],
]
# Runs each command in turn, and prints for each what it has imported that those before it had not
PROGRAM = """
import json, sys
from app.cli import main
for command in json.loads(sys.argv[1]):
    before = set(sys.modules)
    sys.argv = ["burnish", *command]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, command
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    print(json.dumps([command, sorted(new)]))
"""


def imported(
    home: Path, base: BaseModel, commands: list[list[str]]
) -> list[tuple[list[str], set[str]]]:
    """Run commands in one new process; returns the packages that each of them imported."""
    arguments = json.dumps([[*command, "--home", str(home)] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, arguments],
        env={**os.environ, "BURNISH_MODEL": str(base.folder), "BURNISH_MODEL_CACHE": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("[[")]
    return [(command, set(packages)) for command, packages in map(json.loads, lines)]


def test_a_command_without_a_model_imports_no_library_of_models(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    created, *others = imported(tmp_path, tiny_base, [["audit"], *WITHOUT_A_MODEL])
    assert MIGRATING in created[1]
    assert len(others) == len(WITHOUT_A_MODEL)
    assert [(command, found & SLOW) for command, found in others if found & SLOW] == []
    again = imported(tmp_path, tiny_base, WITHOUT_A_MODEL)
    forbidden = SLOW | {MIGRATING}
    assert [(command, found & forbidden) for command, found in again if found & forbidden] == []


WITHOUT_STUB_FILES = """
import app.ui
import gradio.component_meta
class Unknown: pass
# gradio's own function reads the source of the class, and fails where there is none
gradio.component_meta.create_or_modify_pyi(Unknown, "Unknown", [])
"""


def test_gradio_is_imported_without_writing_its_stub_files() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_STUB_FILES], check=True)


SERVING = """
import sys
from pathlib import Path
from engine.models.catalogue import resolve
from engine.messages import Message
from engine.request import GenerationRequest, SamplingParams, collect
from engine.start import start_engine
folder, cache = sys.argv[1], Path(sys.argv[2])
engine = start_engine(
    resolve(folder, cache), quantization="int4", model_cache=cache, max_rows=2, max_queue=2
)
request = GenerationRequest((Message("user", "Hi"),), SamplingParams(max_new_tokens=2))
collect(engine.submit(request))
engine.close()
print(sorted({"transformers", "peft", "langchain_core", "scipy"} & set(sys.modules)))
"""


@pytest.mark.integration
def test_an_engine_is_started_without_transformers_but_for_the_first_time(
    tiny_base: BaseModel, tmp_path: Path, kernel_cache: Path
) -> None:
    share_kernels(tmp_path / "cache", kernel_cache)
    command = [sys.executable, "-c", SERVING, str(tiny_base.folder), str(tmp_path / "cache")]
    found = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[-2]
        for _ in range(2)
    ]
    assert found == ["['transformers']", "[]"]
