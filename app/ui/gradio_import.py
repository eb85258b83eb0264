"""Makes gradio's import cheaper: it writes no stub files for type checkers.

At each import, gradio parses the source of each of its component classes and writes a `.pyi` file
beside it (`gradio.component_meta.create_or_modify_pyi`), which takes longer than all else that the
import does. Nothing at run time reads these files.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODULE = "gradio.component_meta"


class _WithoutStubFiles(MetaPathFinder):
    """Finds gradio's module of component classes, without its writing of stub files."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        found = PathFinder.find_spec(fullname, path) if fullname == MODULE else None
        if found is None or found.loader is None:
            return None
        loader: Any = found.loader
        execute = loader.exec_module

        def execute_and_replace(module: Any) -> None:
            execute(module)
            assert callable(module.create_or_modify_pyi)
            module.create_or_modify_pyi = lambda *_: None

        loader.exec_module = execute_and_replace
        return found


def skip_stub_files() -> None:
    """Let gradio write no stub files; to be called before its first import."""
    sys.meta_path.insert(0, _WithoutStubFiles())
