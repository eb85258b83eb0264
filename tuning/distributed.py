"""Training on several devices: configurations of `accelerate`, and the command of a job.

A configuration is one that is shipped in `tuning/accelerate`, named without its folder, or a file
of the operator's. FSDP and DeepSpeed are untested for want of GPUs. Knows no job's state.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import yaml

from engine.errors import InvalidInput

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
    """How many processes a configuration asks for, at least two.

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
    """Whether `accelerate launch` was told to split weights over processes (FSDP, DeepSpeed).

    Then every process must run the same number of forward passes, and none holds a whole weight.
    """
    from accelerate.utils import parse_flag_from_env

    return any(
        parse_flag_from_env(flag) for flag in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    )
