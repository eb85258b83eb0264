"""Jobs of several processes: they train as one does, publish once, and end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import psutil
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from datasets import Dataset
from safetensors.torch import load_file

from engine.adapters.bundle import open_bundle
from engine.errors import InvalidInput
from engine.home import Home
from engine.models.catalogue import BaseModel
from engine.storage import list_digests
from tests.support.job_events import of_type, steps_of
from tests.support.packed_training import tuned_model
from tests.support.pairs import snapshot_of
from tests.tuning import distributed_child
from tuning.batch.forward import packing_blocker
from tuning.distributed import (
    CONFIGS,
    _split_over_cpu_processes,
    accelerate_arguments,
    config_file,
    processes_of,
    shared_rows,
    worker_arguments,
)
from tuning.jobs.events import JobStarted, StepDone
from tuning.jobs.runner import JobRunner
from tuning.methods.dpo import DpoRecipe
from tuning.methods.sft import SftRecipe
from tuning.recipe import Recipe

STEPS = distributed_child.ROWS // distributed_child.BATCH // 2


def launch(config: str, module: str, *arguments: str) -> None:
    """As a job does; on a machine without devices the processes speak through gloo."""
    options = accelerate_arguments(Path("job"), config_file(Path(config)), processes=2)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            *options[: options.index("-m")],
            "-m",
            module,
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def steps(folder: Path, method: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / method / "steps.json").read_text())
    return found


# The command


@pytest.mark.parametrize("name", CONFIGS)
def test_a_shipped_configuration_is_one_that_accelerate_reads(name: str) -> None:
    kinds = {"ddp": "MULTI_GPU", "fsdp": "FSDP", "deepspeed": "DEEPSPEED"}
    config = load_config_from_file(str(config_file(Path(name))))
    assert config.distributed_type == kinds[name]
    assert processes_of(Path(name)) == config.num_processes == 2


def test_a_configuration_starts_a_launcher_with_its_file_and_its_processes(tmp_path: Path) -> None:
    command = worker_arguments(tmp_path / "job", Path("ddp"), processes=3)
    file = config_file(Path("ddp"))
    assert command == ["-m", "tuning.jobs.launcher", str(tmp_path / "job"), str(file), "3"]
    own = tmp_path / "four.yaml"
    own.write_text(file.read_text().replace("num_processes: 2", "num_processes: 4"))
    assert processes_of(own) == 4
    assert worker_arguments(tmp_path / "job", own, 4)[3:] == [str(own), "4"]
    launched = accelerate_arguments(Path("job"), own, 4)
    assert launched[:2] == [f"--config_file={own}", "--num_processes=4"]
    assert launched[-3:] == ["-m", "tuning.jobs.rank_worker", "job"]


def test_one_process_needs_no_launcher() -> None:
    assert worker_arguments(Path("job")) == ["-m", "tuning.jobs.worker", "job"]


def test_a_configuration_that_is_not_there_is_named_with_those_that_are_shipped() -> None:
    with pytest.raises(InvalidInput, match="'tpu': it is a file, or one of ddp, fsdp, deepspeed"):
        worker_arguments(Path("job"), Path("tpu"), processes=2)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("distributed_type: MULTI_CPU\nnum_processes: 2", "'MULTI_CPU', not one of MULTI_GPU"),
        ("distributed_type: FSDP\nnum_processes: 1", "num_processes is 1"),
        ("distributed_type: FSDP", "num_processes is None"),
        ("distributed_type: FSDP\nnum_processes: 2\nnum_machines: 2", "one machine"),
        ("- FSDP", "not a configuration of accelerate"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_a_configuration_that_would_not_start_several_processes_here_is_refused(
    tmp_path: Path, text: str, refused: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=refused):
        processes_of(file)


def test_a_model_whose_weights_are_split_is_not_packed(
    tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs differ in number between processes, which would wait for each other for ever."""
    model = tuned_model(tiny_base.folder)
    assert packing_blocker(model) is None
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert packing_blocker(model) == "its weights are split over processes"


@pytest.mark.parametrize(
    ("kind", "plugin", "found"),
    [
        (DistributedType.MULTI_CPU, "fsdp", DistributedType.FSDP),
        (DistributedType.MULTI_CPU, None, DistributedType.MULTI_CPU),
        (DistributedType.MULTI_GPU, "fsdp", DistributedType.MULTI_GPU),  # accelerate's own matter
    ],
)
def test_cpu_processes_split_weights_where_accelerate_was_told_to(
    monkeypatch: pytest.MonkeyPatch, kind: DistributedType, plugin: str | None, found: object
) -> None:
    def as_accelerate(self: Any, fsdp_plugin: object = None) -> None:
        self.distributed_type = kind

    monkeypatch.setattr(AcceleratorState, "__init__", as_accelerate)
    _split_over_cpu_processes()
    state = AcceleratorState.__new__(AcceleratorState)
    AcceleratorState.__init__(state, fsdp_plugin=plugin)
    assert state.distributed_type is found
    AcceleratorState.__init__(state)  # as accelerate does again and again, without a plugin
    assert state.distributed_type is found


def test_rows_of_several_processes_lie_in_files_that_all_of_them_see(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = Dataset.from_list([{"ids": [1, 2]}, {"ids": [3]}])
    assert shared_rows(rows, tmp_path / "rows") is rows
    several = SimpleNamespace(num_processes=2, is_main_process=True, wait_for_everyone=lambda: None)
    monkeypatch.setattr(accelerate, "PartialState", lambda: several)
    first = shared_rows(rows, tmp_path / "rows")
    several.is_main_process = False
    second = shared_rows(rows, tmp_path / "rows")
    assert first.to_list() == second.to_list() == rows.to_list()
    places = {Path(each["filename"]).parent for d in (first, second) for each in d.cache_files}
    assert places == {tmp_path / "rows"}


# A job


@pytest.fixture
def runner(tiny_base: BaseModel, tmp_path: Path) -> Iterator[JobRunner]:
    models = tiny_base.folder.parent / "cache"
    yield JobRunner(
        Home(tmp_path / "home"), models, threads=2, accelerate_config=Path("ddp"), nice=0
    )
    for pid in processes_in(tmp_path):  # of a test that failed
        os.kill(pid, signal.SIGKILL)


def start(runner: JobRunner, base: BaseModel, home: Path, epochs: int) -> str:
    recipe = Recipe(
        sft=SftRecipe(epochs=epochs, batch_pairs=2), dpo=DpoRecipe(epochs=epochs, batch_pairs=2)
    )
    return runner.start(
        base_name=base.name,
        base_digest=base.digest,
        snapshot=snapshot_of(home, 16),
        recipe=recipe,
        recipe_origins={},
    )


def processes_in(folder: Path) -> set[int]:
    """The processes that were started with a path in a folder."""
    return {
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(word.startswith(str(folder)) for word in process.info["cmdline"] or [])
    }


def wait_for_a_step(runner: JobRunner, job: str) -> None:
    """Until the job trains, after its last start."""
    since = runner.get(job).started_at
    for event in runner.wait(job, poll_seconds=0.05):
        if isinstance(event, StepDone) and (event.at or 0) > since:
            return
    raise AssertionError((runner.folder(job) / "log.txt").read_text()[-3000:])


def wait_for_none(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while processes_in(folder):
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_job_of_two_processes_publishes_one_bundle(
    tiny_base: BaseModel, tmp_path: Path, runner: JobRunner
) -> None:
    job_id = start(runner, tiny_base, tmp_path / "home", epochs=1)
    events = list(runner.wait(job_id))
    job, folder = runner.get(job_id), runner.folder(job_id)
    assert (job.state, job.error) == ("done", None), (folder / "log.txt").read_text()[-3000:]
    assert list_digests(Home(tmp_path / "home").bundles) == [job.bundle]
    assert job.bundle is not None
    manifest = open_bundle(Home(tmp_path / "home").bundles, job.bundle, tiny_base).manifest
    assert manifest["processes"] == 2
    (begun,) = of_type(events, JobStarted)
    assert (begun.processes, begun.threads) == (2, 1)
    told = steps_of(events)
    assert len(told) == len(set(told)) > 0
    wait_for_none(folder)


@pytest.mark.slow
def test_a_job_of_two_processes_leaves_none_behind_when_it_is_cancelled_or_its_launcher_dies(
    tiny_base: BaseModel, tmp_path: Path, runner: JobRunner
) -> None:
    job = start(runner, tiny_base, tmp_path / "home", epochs=200)
    folder = runner.folder(job)
    wait_for_a_step(runner, job)
    assert len(processes_in(folder)) == 3
    runner.cancel(job)
    for _ in runner.wait(job):
        pass
    assert processes_in(folder) == set()  # the lease goes with the last of them
    assert runner.get(job).state == "cancelled"

    runner.resume(job)
    wait_for_a_step(runner, job)
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    wait_for_none(folder)
    assert runner.get(job).state == "interrupted"


@pytest.mark.slow
def test_a_job_whose_first_process_is_killed_says_so(
    tiny_base: BaseModel, tmp_path: Path, runner: JobRunner
) -> None:
    job = start(runner, tiny_base, tmp_path / "home", epochs=200)
    wait_for_a_step(runner, job)
    launcher = psutil.Process(int((runner.folder(job) / "pid").read_text()))
    next(p for p in launcher.children() if p.environ()["RANK"] == "0").kill()
    for _ in runner.wait(job):
        pass
    assert runner.get(job).state == "failed"
    assert "process 0 ended with status -9" in str(runner.get(job).error)
    wait_for_none(runner.folder(job))


@pytest.mark.slow
@pytest.mark.parametrize("config", ["ddp", "fsdp"])
def test_two_processes_train_as_one_with_twice_the_accumulation(
    tiny_base: BaseModel, tmp_path: Path, config: str
) -> None:
    """Rows differ in length, so that the processes have different numbers of packs and tokens.

    With FSDP 2 each process holds half of every weight, and rows are not packed.
    """
    spec: dict[str, Any] = {"model": str(tiny_base.folder)}
    one, two = tmp_path / "one", tmp_path / "two"
    distributed_child.train(**spec, folder=str(one), accumulation=2)
    both = json.dumps({**spec, "folder": str(two), "accumulation": 1})
    launch(config, "tests.tuning.distributed_child", both)
    for method in ("sft", "dpo", "joint"):
        alone, together = steps(one, method), steps(two, method)
        assert len(alone) == len(together) == STEPS
        for name in ("loss", "grad_norm", "num_tokens"):
            assert [s[name] for s in together] == pytest.approx([s[name] for s in alone], rel=1e-4)
        expected, found = (
            load_file(folder / method / "adapter" / "adapter_model.safetensors")
            for folder in (one, two)
        )
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            apart = float((found[name] - tensor).norm() / tensor.norm())
            assert apart < 1e-3, name  # Adam takes whole steps where a gradient is nearly 0
    for method, name in (("dpo", "rewards/margins"), ("joint", "demonstration_loss")):
        expected_means, found_means = (
            [step.get(name, 0.0) for step in steps(folder, method)] for folder in (one, two)
        )
        assert found_means == pytest.approx(expected_means, rel=1e-3, abs=1e-5)
