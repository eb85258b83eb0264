"""A model is prepared in a process of its own, once, and a failure is left to the start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.models.catalogue import BaseModel
from engine.preparation import PREPARED_FOLDER, prepare_apart
from engine.prompts.stored_tokenizer import TOKENIZERS_FOLDER
from tests.conftest import share_kernels


@pytest.mark.integration
def test_a_model_is_prepared_once(
    tiny_base: BaseModel, tmp_path: Path, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    share_kernels(cache, kernel_cache)
    prepare_apart(str(tiny_base.folder), cache)
    assert len(list((cache / TOKENIZERS_FOLDER).iterdir())) == 1
    assert len(list((cache / PREPARED_FOLDER).iterdir())) == 1

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("prepared again")

    monkeypatch.setattr("engine.preparation.subprocess.run", fail)
    prepare_apart(str(tiny_base.folder), cache)
    with pytest.raises(AssertionError, match="prepared again"):
        prepare_apart("another model", cache)


@pytest.mark.integration
def test_a_model_that_cannot_be_had_is_no_error_here_and_is_tried_again(tmp_path: Path) -> None:
    arguments = json.dumps(["no such model", str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-m", "engine.preparation", arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not (tmp_path / PREPARED_FOLDER).exists()


def test_a_cache_that_cannot_be_written_is_left_to_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("nothing would be left of it")

    monkeypatch.setattr("engine.preparation.subprocess.run", fail)
    (tmp_path / PREPARED_FOLDER).write_text("no folder")
    monkeypatch.setattr("engine.preparation.os.access", lambda *_: False)
    prepare_apart("embedded", tmp_path)
