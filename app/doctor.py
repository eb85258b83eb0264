"""`burnish doctor`: the machine's capabilities, the choices made from them, and any problems."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from app.model_table import model_table
from app.settings_table import settings_table
from app.workspace import Workspace
from engine.errors import BurnishError
from engine.units import gib, mib

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "gradio",
    "langchain-core",
    "sentencepiece",
    "sqlalchemy",
)
MIN_FREE_DISK_BYTES = 2 * 2**30


def inspect_machine(
    workspace: Workspace, say: Callable[[str], object] = lambda _step: None
) -> dict[str, Any]:
    """Return all findings; `problems` has a sentence for each thing that must be fixed.

    `say` is told each step that takes time.
    """
    import pysqlite3.dbapi2

    from engine.hardware import detect

    hardware = detect()
    problems: list[str] = []
    free = shutil.disk_usage(workspace.home.root).free
    if free < MIN_FREE_DISK_BYTES:
        problems.append(f"only {gib(free)} of disk are free in {workspace.home.root}")
    say("Opening the model, which is fetched or converted the first time")
    model = _model(workspace, problems)
    if model and 2 * model["weight_bytes"] > hardware.memory_bytes:
        problems.append(f"{model['name']} does not fit in memory with room to work")
    say("Checking what the engine needs")
    engine = _engine(workspace, problems) if model else None
    say("Checking what tuning needs")
    kernels = _tuning_kernels(workspace)
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "sqlite": pysqlite3.dbapi2.sqlite_version,
        "hardware": {
            "device": hardware.device,
            "dtype": str(hardware.dtype).removeprefix("torch."),
            "reason": hardware.reason,
            "cpu_threads": hardware.cpu_threads,
            "memory_bytes": hardware.memory_bytes,
        },
        "home": str(workspace.home.root),
        "disk_free_bytes": free,
        "model": model,
        "engine": engine,
        "tuning": {"kernels": kernels},
        "presets": _presets(workspace),
        "live": workspace.registry.live().bundle or "base",
        "settings": _settings(workspace),
        "problems": problems,
    }


def describe(findings: dict[str, Any]) -> str:
    """Return the findings as text."""
    hardware, model = findings["hardware"], findings["model"]
    lines = [
        f"python     {findings['python']}, sqlite {findings['sqlite']}",
        f"compute    {hardware['device']} in {hardware['dtype']}: {hardware['reason']};"
        f" {hardware['cpu_threads']} threads, {gib(hardware['memory_bytes'])}",
        f"home       {findings['home']} ({gib(findings['disk_free_bytes'])} free)",
        f"live       {findings['live']}",
    ]
    if model:
        lines.append(f"model      {model['name']}, {mib(model['weight_bytes'])}, {model['folder']}")
    fitting = [name for name, found in findings["presets"].items() if found["fits"]]
    lines.append(f"fits       as int4: {', '.join(fitting)}")
    if engine := findings["engine"]:
        lines.append(
            f"engine     {engine['kind']}, weights as {engine['quantization']}: {engine['reason']}"
        )
    lines.append(f"tuning     {findings['tuning']['kernels']}")
    lines += [f"library    {name} {version}" for name, version in findings["versions"].items()]
    lines += [
        f"setting    {name} = {entry['value']} ({entry['origin']})"
        for name, entry in findings["settings"].items()
        if entry["origin"] != "default"
    ]
    lines += [f"PROBLEM    {problem}" for problem in findings["problems"]] or ["no problems found"]
    return "\n".join(lines)


def _model(workspace: Workspace, problems: list[str]) -> dict[str, Any] | None:
    try:
        base = workspace.base
    except BurnishError as error:
        problems.append(str(error))
        return None
    weights = sum(path.stat().st_size for path in base.folder.glob("*.safetensors"))
    return {
        "name": base.name,
        "folder": str(base.folder),
        "digest": base.digest,
        "weight_bytes": weights,
    }


def _presets(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Return the rows of the table of models by the presets' names."""
    rows = (asdict(row) for row in model_table(workspace.settings))
    return {row.pop("name"): row for row in rows}


def _engine(workspace: Workspace, problems: list[str]) -> dict[str, Any]:
    """Return the engine that `burnish serve` would start, and its kernels."""
    from engine.hardware import detect
    from engine.models.kernel_selection import select_kernels
    from engine.start import engine_kind, kernel_cache, plan_start

    settings = workspace.settings
    kind = engine_kind(workspace.base, settings.engine)
    reason = "any architecture, by transformers; slower"
    try:
        plan = plan_start(
            workspace.base, settings.engine, settings.quantization, settings.model_cache
        )
        if plan.architecture is not None:
            kernels = kernel_cache(settings.model_cache)
            reason = select_kernels(detect().device, kernels, plan.architecture.widths).reason
    except BurnishError as error:
        problems.append(str(error))
    return {"kind": kind, "quantization": settings.quantization, "reason": reason}


def _tuning_kernels(workspace: Workspace) -> str:
    """Return the kernels that a tuning job would use."""
    from engine.start import kernel_cache
    from tuning.kernels import choose_kernels

    return choose_kernels(kernel_cache(workspace.settings.model_cache)).reason


def _settings(workspace: Workspace) -> dict[str, Any]:
    """Return each setting with its origin; secrets are hidden."""
    return {
        row.name: {"value": row.value, "origin": row.origin, "meaning": row.meaning}
        for row in settings_table(workspace.settings)
    }
