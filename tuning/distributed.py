"""Training on several devices: configurations of `accelerate`, and the command of a job.

A configuration is one that is shipped in `tuning/accelerate`, named without its folder, or a file
of the operator's. Knows no job's state.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from engine.errors import InvalidInput

if TYPE_CHECKING:
    from datasets import Dataset

CONFIGS = ("ddp", "fsdp", "deepspeed")
DISTRIBUTED_TYPES = ("MULTI_GPU", "FSDP", "DEEPSPEED")  # as accelerate calls what the three are


def config_file(config: Path) -> Path:
    """The file of a configuration; raises `InvalidInput` where there is none."""
    if str(config) in CONFIGS:
        return Path(str(resources.files("tuning").joinpath("accelerate", f"{config}.yaml")))
    if not config.is_file():
        raise InvalidInput(
            f"no configuration {str(config)!r}: it is a file, or one of {', '.join(CONFIGS)}"
        )
    return config.resolve()


def processes_of(config: Path) -> int:
    """The number of processes that a configuration asks for, at least two.

    Raises `InvalidInput` for a configuration that cannot be read, asks for fewer or for several
    machines, or is of a kind that is not one of `DISTRIBUTED_TYPES`.
    """
    try:
        values = yaml.safe_load(config_file(config).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{config} cannot be read as YAML ({type(error).__name__})") from None
    if not isinstance(values, dict):
        raise InvalidInput(f"{config}: not a configuration of accelerate")
    kind, processes = values.get("distributed_type"), values.get("num_processes")
    problems = []
    if kind not in DISTRIBUTED_TYPES:
        problems.append(f"distributed_type is {kind!r}, not one of {', '.join(DISTRIBUTED_TYPES)}")
    if not isinstance(processes, int) or processes < 2:
        problems.append(f"num_processes is {processes!r}; one process needs no configuration")
    if values.get("num_machines", 1) != 1:
        problems.append("num_machines: a job runs on one machine")
    if problems:
        raise InvalidInput(f"{config}: " + "; ".join(problems))
    return int(str(processes))


def worker_arguments(job: Path, config: Path | None = None, processes: int = 1) -> list[str]:
    """Python's arguments to run the job in a folder: one process, or a launcher of several.

    Raises `InvalidInput` as `config_file` does.
    """
    if config is None:
        return ["-m", "tuning.jobs.worker", str(job)]
    return ["-m", "tuning.jobs.launcher", str(job), str(config_file(config)), str(processes)]


def accelerate_arguments(job: Path, config: Path, processes: int) -> list[str]:
    """Arguments of `accelerate launch` to run the job in a folder."""
    options = {
        "config_file": config,
        "num_processes": processes,
        "main_process_port": 0,  # any free one
    }
    named = [f"--{name}={value}" for name, value in options.items()]
    return [*named, "-m", "tuning.jobs.rank_worker", str(job)]


def weights_are_split() -> bool:
    """Return whether `accelerate launch` was told to split weights (FSDP, DeepSpeed).

    Then every process must run the same number of forward passes, and none holds a whole weight.
    """
    from accelerate.utils import parse_flag_from_env

    return any(
        parse_flag_from_env(flag) for flag in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    )


def shared_rows(rows: Dataset, folder: Path) -> Dataset:
    """The rows, in the files of a folder where several processes train.

    trl lets the first process write reference log-probabilities beside the rows for all of them;
    beside rows in memory, each process would look in a temporary folder of its own.
    """
    from accelerate import PartialState
    from datasets import Dataset

    processes = PartialState()
    if processes.num_processes == 1:
        return rows
    if processes.is_main_process:
        rows.save_to_disk(folder)
    processes.wait_for_everyone()
    return Dataset.load_from_disk(folder)


def join_processes() -> bool:
    """Join the processes that `accelerate launch` started; returns whether this is the first.

    Without a device each must be told so, or it takes itself for the only one.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    on_cpu = not torch.cuda.is_available()
    first: bool = PartialState(cpu=on_cpu).is_main_process
    if on_cpu and parse_flag_from_env("ACCELERATE_USE_FSDP"):
        _split_over_cpu_processes()
    return first


def _split_over_cpu_processes() -> None:
    """Make accelerate split weights over CPU processes too (FSDP 2 through gloo).

    It reads its FSDP plugin for devices alone, and would train CPU processes with whole weights
    without a word (accelerate 1.15, `AcceleratorState.__init__`).
    """
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    original = AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
        split = self.__dict__.get("fsdp_plugin") is not None
        if split and self.distributed_type is DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP

    AcceleratorState.__init__ = init
