"""An export onto a disk that is really full, and one whose process is really killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.models.catalogue import BaseModel
from tests.helpers import make_bundle
from tests.support.small_disk import can_mount
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "tests.support.export_child"]
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=48k none "$DISK"
"$@" "$DISK/out" | tail -1
ls -A "$DISK" | wc -l
"""


@pytest.mark.skipif(not can_mount(), reason="needs to mount a small disk of its own (unshare)")
@pytest.mark.parametrize("name", ["merged", "gguf", "ollama"])
def test_a_disk_that_is_really_full_is_said_and_nothing_is_left(
    name: str, tiny_base: BaseModel, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundles", tiny_base)
    (tmp_path / "disk").mkdir()
    arguments = [str(tiny_base.folder), str(tmp_path / "bundles"), bundle, name]
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", ON_A_SMALL_DISK, "sh", *COMMAND, *arguments],
        env={**os.environ, "DISK": str(tmp_path / "disk")},
        capture_output=True,
        text=True,
    )
    error, left = done.stdout.strip().splitlines()
    assert json.loads(error).startswith("StorageFull: cannot write"), done.stderr[-2_000:]
    assert json.loads(error).endswith("No space left on device")
    assert int(left) == 0


def test_a_killed_process_leaves_no_target_and_the_next_export_works(
    tiny_base: BaseModel, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundles", tiny_base)
    arguments = [*COMMAND, str(tiny_base.folder), str(tmp_path / "bundles"), bundle, "gguf"]
    target = tmp_path / "out" / "gguf"
    process = subprocess.Popen([*arguments, str(target)], stdout=subprocess.DEVNULL)
    wait_until(lambda: target.parent.is_dir() and any(target.parent.iterdir()), seconds=120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists() or (target / "README.md").is_file()
    left = [path for path in target.parent.iterdir() if path != target]
    assert all(path.name.startswith(".tmp-") for path in left)
    if not target.exists():
        subprocess.run([*arguments, str(target)], check=True, capture_output=True)
    assert (target / "README.md").is_file()
    assert len(list(target.glob("*.gguf"))) == 1
