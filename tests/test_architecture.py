"""The house keeps its shape: short files and classes, one meaning a name, links that lead there."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("engine", "feedback_store", "tuning", "deploy", "app")
OTHERS = ("benchmarks", "tests")
MAX_FILE_LINES, MAX_CLASS_LINES = 400, 250
# Each file of a room that holds one kind of thing gives the same names: a family of checkpoints, a
# kind of adapter, a version of ChatGLM's prompts, a format of exports
SHARED_BY_PLUGINS = {
    "engine/models": {"MODEL_TYPES", "architecture"},
    "engine/adapters": {"CHECKED", "PEFT_TYPES", "config_problems", "open_adapter", "problems"},
    "engine/prompts/chatglm": {"chat_text"},
    "deploy/export": {"QUANTIZATIONS", "refusal", "write"},
}
CONVENTIONS = {"log", "main"}  # a module's logger, and a program's entry
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]+)?\)")


def sources(*folders: str) -> list[Path]:
    """The modules of some folders, without Alembic's scripts, which have names of their own."""
    found = (file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    return sorted(file for file in found if "migrations" not in file.parts)


def name_of(file: Path) -> str:
    module = file.relative_to(ROOT).with_suffix("")
    return ".".join(module.parts[:-1] if module.name == "__init__" else module.parts)


def test_every_module_can_be_imported() -> None:
    for file in sources(*FLOORS):
        importlib.import_module(name_of(file))


def test_no_imports_go_in_a_circle() -> None:
    """But for imports that only type checkers read."""
    graph = grimp.build_graph(*FLOORS, exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    TopologicalSorter(imports).prepare()  # raises a CycleError that names the circle


def test_no_file_is_too_long_to_read() -> None:
    lines = {name_of(f): f.read_text("utf-8").count("\n") for f in sources(*FLOORS, *OTHERS)}
    long = {name: count for name, count in lines.items() if count > MAX_FILE_LINES}
    assert not long, long


def test_no_class_is_too_long_to_read() -> None:
    long = {
        f"{name_of(file)}.{node.name}": length
        for file in sources(*FLOORS, *OTHERS)
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_CLASS_LINES
    }
    assert long == {}


def test_a_name_has_one_meaning() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file in sources(*FLOORS):
        shared = SHARED_BY_PLUGINS.get(str(file.parent.relative_to(ROOT)), set()) | CONVENTIONS
        for name in set(names_defined_in(ast.parse(file.read_text("utf-8")))) - shared:
            places[name].append(name_of(file))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def names_defined_in(module: ast.Module) -> Iterator[str]:
    """The public names at the top of a module, but for type variables of one letter."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_") and len(name) > 1)


@pytest.mark.parametrize(
    "document", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda path: path.name
)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    broken = []
    for found in LINK.finditer(document.read_text("utf-8")):
        target = document.parent / found[1]
        headings = anchors_of(target) if found[2] and target.suffix == ".md" else set()
        if not target.exists() or (found[2] and found[2][1:] not in headings):
            broken.append(found[0])
    assert broken == []


def anchors_of(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    if not document.exists():
        return set()
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
