"""The worker's manners and its end: it stands back for chat, and says why it failed.

Most of these tests call the worker's `main` in this process, where a fault can be put in its way.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from safetensors import SafetensorError

from engine.home import Home
from engine.models.catalogue import BaseModel
from tests.support.job_events import steps_of
from tests.support.jobs import DPO_STEPS, TINY
from tests.support.pairs import snapshot_of
from tests.support.small_disk import can_mount
from tuning.jobs import worker
from tuning.jobs.events import JobStarted
from tuning.jobs.job_folder import JobFolder, JobSpec
from tuning.jobs.worker import DISK_FULL
from tuning.methods.dpo_trainer import PackedDPOTrainer

ROOT = Path(__file__).parents[3]


def job_folder(home: Path, base: BaseModel, snapshot: str = "sha256:" + "0" * 64) -> Path:
    """A job as its starter leaves it to the worker."""
    spec = JobSpec(
        str(home),
        str(base.folder.parent / "cache"),
        base.name,
        base.digest,
        snapshot,
        TINY.as_dict(),
        {},
        torch.get_num_threads(),
    )
    folder = Home(home).jobs / spec.id.removeprefix("sha256:")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({**asdict(spec), "started_at": time.time()}))
    return folder


def result_of(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests themselves are not to stand back."""
    monkeypatch.setattr(worker, "yield_to_chat", lambda nice: "idle")


# It stands back for chat

MANNERS = """
import json, os, threading, psutil
from tuning.jobs.worker import yield_to_chat
said, found = yield_to_chat(), []
thread = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
thread.start()
thread.join()
group = open("/proc/self/autogroup").read() if os.path.exists("/proc/self/autogroup") else ""
print(json.dumps([said, os.sched_getscheduler(0), found, psutil.Process().ionice()[0], group]))
"""


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's schedulers")
def test_a_worker_and_the_threads_it_starts_run_only_where_nobody_else_would() -> None:
    said, policy, of_thread, disk, group = json.loads(manners([sys.executable, "-c", MANNERS]))
    assert said == "idle"
    assert [policy, *of_thread] == [os.SCHED_IDLE] * 2
    assert disk == psutil.IOPRIO_CLASS_IDLE
    assert group == "" or group.strip().endswith("nice 19")  # no group where they are off


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's schedulers")
def test_a_worker_with_a_niceness_has_its_share_of_a_busy_machine() -> None:
    program = MANNERS.replace("yield_to_chat(), []", "yield_to_chat(5), [os.nice(0)]")
    said, policy, found, _disk, group = json.loads(manners([sys.executable, "-c", program]))
    assert (said, policy, found) == ("nice 5", os.SCHED_OTHER, [5, os.SCHED_OTHER])
    assert group == "" or group.strip().endswith("nice 5")


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's schedulers")
def test_a_worker_started_by_hand_leaves_the_rest_of_its_terminal_alone() -> None:
    """Python as a child of the session's first process, as in a shell."""
    shell = ["sh", "-c", '"$0" -c "$1"; true', sys.executable, MANNERS]
    said, *_, group = json.loads(manners(shell))
    assert said == "idle"
    assert group == "" or group.strip().endswith("nice 0")


def manners(command: list[str]) -> str:
    """What a command prints that is the first process of a new session."""
    done = subprocess.run(
        command, cwd=ROOT, start_new_session=True, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.mark.usefixtures("in_this_process")
def test_a_worker_says_how_many_threads_it_took_and_who_it_is(
    tmp_path: Path, tiny_base: BaseModel
) -> None:
    folder = job_folder(tmp_path, tiny_base)  # its snapshot does not exist
    assert worker.main(folder) == 1
    (started,) = JobFolder(folder).events()
    assert started.at is not None and started.at <= time.time()
    assert started == JobStarted(
        pid=os.getpid(), threads=torch.get_num_threads(), priority="idle", processes=1
    )
    assert (folder / "pid").read_text() == str(os.getpid())


# A loss that is not a number


@pytest.mark.integration
@pytest.mark.usefixtures("in_this_process")
def test_a_loss_that_is_no_number_keeps_the_checkpoint_before_and_the_job_goes_on_from_it(
    tmp_path: Path, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At step 20, which would have been saved; step 10 was."""
    folder = job_folder(tmp_path, tiny_base, snapshot_of(tmp_path, 16))
    real_step: Callable[..., torch.Tensor] = PackedDPOTrainer.training_step

    def step(trainer: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = real_step(trainer, *args, **kwargs)
        return loss * float("nan") if trainer.state.global_step == 19 else loss

    with monkeypatch.context() as broken:
        broken.setattr(PackedDPOTrainer, "training_step", step)
        assert worker.main(folder) == 1
    reason = "EngineFailure: the loss is nan at step 20"
    assert result_of(folder) == {"state": "failed", "error": reason}
    assert [path.name for path in (folder / "dpo").glob("checkpoint-*")] == ["checkpoint-10"]
    assert not (Home(tmp_path).bundles).exists()

    before = len(JobFolder(folder).events())
    assert worker.main(folder) == 0
    again = JobFolder(folder).events()[before:]
    assert steps_of(again) == [("dpo", number) for number in range(11, DPO_STEPS + 1)]
    assert result_of(folder)["state"] == "done"


# A full disk


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("error", "free_bytes"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1 << 40),
        (SafetensorError("Error while serializing: I/O error: Disk quota (os error 122)"), 1 << 40),
        (RuntimeError("unexpected pos 576 vs 534"), 4096),  # torch.save's word for it
    ],
)
def test_a_full_disk_is_called_so_whoever_met_it_and_what_was_half_saved_is_gone(
    tmp_path: Path,
    tiny_base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    free_bytes: int,
) -> None:
    folder = job_folder(tmp_path, tiny_base)

    def run(*_: Any) -> str:
        for name in ("sft/adapter", "dpo/adapter.tmp", "dpo/checkpoint-10", "dpo/checkpoint-20"):
            (folder / name).mkdir(parents=True)
        (folder / "dpo" / "checkpoint-10" / "trainer_state.json").write_text("{}")
        raise RuntimeError("saving failed") from error

    monkeypatch.setattr(worker, "_run", run)
    monkeypatch.setattr(
        worker,
        "shutil",
        SimpleNamespace(
            rmtree=shutil.rmtree, disk_usage=lambda _: SimpleNamespace(free=free_bytes)
        ),
    )
    assert worker.main(folder) == 1
    assert result_of(folder) == {"state": "failed", "error": DISK_FULL}
    left = {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}
    assert left == {"sft/adapter", "dpo/checkpoint-10"}
    assert not (folder / "reserve").exists()


@pytest.mark.usefixtures("in_this_process")
def test_another_failure_is_not_blamed_on_the_disk(
    tmp_path: Path, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = job_folder(tmp_path, tiny_base)

    def run(*_: Any) -> str:
        raise RuntimeError("no such layer")

    monkeypatch.setattr(worker, "_run", run)
    assert worker.main(folder) == 1
    assert result_of(folder)["error"] == "RuntimeError: no such layer"


ON_A_SMALL_DISK = """
mount -t tmpfs -o size=$SIZE none "$DISK" && cp -r "$HOME_FOLDER/." "$DISK"
"$PYTHON" -m tuning.jobs.worker "$DISK/jobs/$JOB" >/dev/null 2>&1
cat "$DISK/jobs/$JOB/result.json"
echo
ls "$DISK/bundles" 2>/dev/null | wc -l
find "$DISK/jobs" -name adapter.tmp | wc -l
"""


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs to mount a small disk of its own (unshare)")
@pytest.mark.parametrize("spare_kib", [90, 130, 190, 260])
def test_a_job_on_a_disk_that_is_really_full_fails_with_the_reason_and_publishes_nothing(
    tmp_path: Path, tiny_base: BaseModel, spare_kib: int
) -> None:
    home, disk = tmp_path / "home", tmp_path / "disk"
    disk.mkdir()
    folder = job_folder(home, tiny_base, snapshot_of(home, 16))
    document = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**document, "home": str(disk)}))
    used = sum(-(-path.stat().st_size // 4096) * 4 for path in home.rglob("*") if path.is_file())
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", ON_A_SMALL_DISK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "SIZE": f"{used + spare_kib}k",
            "DISK": str(disk),
            "HOME_FOLDER": str(home),
            "PYTHON": sys.executable,
            "JOB": folder.name,
        },
    )
    result, bundles, half_saved = done.stdout.strip().splitlines()
    assert json.loads(result) == {"state": "failed", "error": DISK_FULL}
    assert (int(bundles), int(half_saved)) == (0, 0)
