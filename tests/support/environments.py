"""An environment like the one of the tests, in which some packages cannot be found."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python_without(folder: Path, *distributions: str) -> Path:
    """Make the environment in a folder; returns its Python. Needs no registry and no copies.

    It has links to everything that is installed here but the distributions, and this repository
    comes in by PYTHONPATH (`variables_of`).
    """
    venv.create(folder, symlinks=True)
    left_out = {part for name in distributions for part in _top_level(name)}
    installed = Path(sysconfig.get_path("purelib"))
    site = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    for path in installed.iterdir():
        if path.name not in left_out and not path.name.startswith("__editable__"):
            (site / path.name).symlink_to(path)
    return folder / "bin" / Path(sys.executable).name


def variables_of(python: Path, **more: str) -> dict[str, str]:
    """The environment variables of a process in it."""
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **more}


def _top_level(distribution: str) -> set[str]:
    """The files and folders that a distribution has in site-packages."""
    files = importlib.metadata.files(distribution) or ()
    return {file.parts[0] for file in files} - {"..", "__pycache__"}
