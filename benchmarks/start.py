"""Starts of the server: `python -m benchmarks.start --json [--against REVISION]`.

Starts `burnish serve` on the embedded model in a new home with an empty model cache (the first
start: fetches nothing, converts the model, compiles the kernels), and again (the second start).
Each figure is of the time until it says that it is ready: its page answers, and its engine has
generated a token. With `--against`, a checkout of that revision is measured in the same run, in
turn. Python's bytecode is cached for both. Processor seconds are those of the server and of the
processes that it waited for; other programs do not change them much, seconds they do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

RUNS = 3
BURNISH = [sys.executable, "-c", "from app.cli import main; main()"]
COMMANDS = (("feedback", "stats"), ("release", "list"), ("loop", "status"))
Figures = dict[str, float]


def main() -> None:
    """Measure this tree, and the other one beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", metavar="REVISION")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _trees(arguments.against) as trees:
        found = {name: _Tree(tree, Path(folder) / name) for name, tree in trees.items()}
        for tree in found.values():
            tree.start()  # fills the cache of bytecode
            tree.forget()
        measured: dict[str, list[dict[str, Figures]]] = {name: [] for name in found}
        for _ in range(arguments.runs):
            for name, tree in found.items():
                measured[name].append(tree.measure())
                tree.forget()
    document = {name: _medians(runs) for name, runs in measured.items()}
    print(json.dumps(document) if arguments.json else _table(document))


@contextmanager
def _trees(revision: str | None) -> Iterator[Mapping[str, Path]]:
    """This checkout, and one of a revision if it is given."""
    here = Path(__file__).parents[1]
    if revision is None:
        yield {"now": here}
        return
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        git = ["git", "-C", str(here), "worktree"]
        subprocess.run([*git, "add", "--detach", str(before), revision], check=True)
        try:
            yield {"before": before, "now": here}
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], check=True)


class _Tree:
    """One checkout, with a home and a model cache of its own."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self._tree = tree
        self._home, self._cache = folder / "home", folder / "models"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("BURNISH_", "PYTHON"))}
        self._environment = {
            **kept,
            "BURNISH_MODEL_CACHE": str(self._cache),
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        }

    def measure(self) -> dict[str, Figures]:
        """The first start, the second, and commands that need no model."""
        figures = {"first start": self.start(), "second start": self.start()}
        return figures | {" ".join(command): self._command(command) for command in COMMANDS}

    def start(self) -> Figures:
        """Start a server and stop it once it is ready."""
        begun = time.monotonic()
        server = subprocess.Popen(
            [*BURNISH, "serve", "--json", "--port", "0", "--home", str(self._home)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._tree,
            env=self._environment,
        )
        assert server.stdout is not None
        ready = server.stdout.readline()
        seconds = time.monotonic() - begun
        assert ready, "the server did not start"
        process = psutil.Process(server.pid)
        figures = {
            "seconds": seconds,
            "processor_seconds": sum(process.cpu_times()[:4]),
            "resident_bytes": process.memory_info().rss,
        }
        server.send_signal(signal.SIGTERM)
        server.wait()
        return figures

    def forget(self) -> None:
        """Delete the home and the model cache."""
        for folder in (self._home, self._cache):
            shutil.rmtree(folder)

    def _command(self, command: tuple[str, ...]) -> Figures:
        begun, before = time.monotonic(), os.times()
        subprocess.run(
            [*BURNISH, *command, "--home", str(self._home)],
            stdout=subprocess.DEVNULL,
            cwd=self._tree,
            env=self._environment,
            check=True,
        )
        after = os.times()
        processor = (after.children_user - before.children_user) + (
            after.children_system - before.children_system
        )
        return {"seconds": time.monotonic() - begun, "processor_seconds": processor}


def _medians(runs: list[dict[str, Figures]]) -> dict[str, Figures]:
    return {
        what: {figure: median(run[what][figure] for run in runs) for figure in figures}
        for what, figures in runs[0].items()
    }


def _table(document: Mapping[str, dict[str, Figures]]) -> str:
    """The figures of each tree, and this one's as a share of the other's."""
    lines = []
    for what, figures in document["now"].items():
        for figure, value in figures.items():
            unit = 2**20 if figure == "resident_bytes" else 1
            shown = f"{what:14} {figure:18} {value / unit:8.2f}"
            if "before" in document:
                before = document["before"][what][figure]
                shown += f"   before {before / unit:8.2f}   ratio {value / before:.2f}"
            lines.append(shown)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
