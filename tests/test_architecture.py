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
from alembic.script import ScriptDirectory

from feedback_store.storage.database import newest_version

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
MIGRATIONS = (
    "feedback_store/accounts/migrations",
    "feedback_store/storage/migrations",
    "deploy/migrations",
)
ARCHITECTURE = ROOT / "docs" / "architecture.md"
# `Name` or `Class.method`, then (`its/file.py`), as the walks of docs/architecture.md name things
NAMED_IN = re.compile(r"`([\w.]+)` \(`([\w/]+\.(?:py|js))`\)")
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
        yield from (n for n in names_of(node) if not n.startswith("_") and len(n) > 1)


@pytest.mark.parametrize("folder", MIGRATIONS)
def test_migrations_follow_each_other_in_one_line(folder: str) -> None:
    """Two branches that both add the next number would leave two heads, or one unreachable."""
    scripts = ScriptDirectory(str(ROOT / folder))
    numbers = [path.name.partition("_")[0] for path in (ROOT / folder).glob("versions/[0-9]*.py")]
    assert scripts.get_heads() == [newest_version(ROOT / folder)]
    assert sorted(numbers) == [f"{n:04}" for n in range(1, len(numbers) + 1)]
    assert len(list(scripts.walk_revisions())) == len(numbers)


def test_the_walks_name_what_stands_in_their_files() -> None:
    named = NAMED_IN.findall(ARCHITECTURE.read_text("utf-8"))
    assert len(named) > 40  # the pattern still fits the tables
    missing = [
        f"{name} ({file})"
        for name, file in named
        if not (ROOT / file).is_file() or not is_defined_in(ROOT / file, name)
    ]
    assert missing == []


def is_defined_in(file: Path, name: str) -> bool:
    """Whether a module defines a name, or a script of the page a function or class of that name."""
    text = file.read_text("utf-8")
    if file.suffix == ".js":
        owner, _, member = name.rpartition(".")
        declared = re.search(rf"\b(class|function|const) {owner or member}\b", text)
        return bool(declared and (not owner or re.search(rf"^\s+(async )?{member}\(", text, re.M)))
    body = ast.parse(text).body
    for part in name.split("."):
        found = [node for node in body if part in names_of(node)]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


def names_of(node: ast.stmt) -> list[str]:
    """The names that a statement binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return []


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
