"""The rooms of the package: who may import whom, and how much one of them holds."""

import ast
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"mrsds_ppl": "mrsds_ppl", "models": "mrsds_ppl.models", "guides": "mrsds_ppl.guides"}
# A room imports rooms of lower lines, and of its own line those beside it.
LINES = (
    "errors config.names quantities",
    "nn data backend storage",
    "statespace",
    "ppl",
    "models",
    "guides",
    "train",
    "start",
    "analysis",
    "config",
    "build",
    "output",
    "fit fitted fitted_messages",
    "sweeps",
    "commands",
    "cli",
    "__main__",
)
RANK = {room: rank for rank, line in enumerate(LINES) for room in line.split()}
LINES_OF_A_FILE, FILES_OF_A_ROOM, FILES_AT_THE_TOP, ANY = 300, 12, 8, 13
# What the directions forbid and is there; to become none.
ALLOWED = {
    ("mrsds_ppl.output.plots.of_fit", "mrsds_ppl.fitted"),
    ("mrsds_ppl.output.report.flow", "mrsds_ppl.fitted"),
    ("mrsds_ppl.output.report.gather", "mrsds_ppl.fitted"),
    ("mrsds_ppl.output.report.scores", "mrsds_ppl.fitted"),
    ("mrsds_ppl.output.results", "mrsds_ppl.fitted"),
    ("mrsds_ppl.output.shown", "mrsds_ppl.fitted"),
}


def files() -> dict[str, Path]:
    """Every module by its name as it is imported."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


FILES = files()


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules of the package that a tree imports."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else str(node.module) for name in inside]
        yield from (name for name in names if name in FILES)


def room(module: str) -> str:
    name = module.removeprefix("mrsds_ppl").removeprefix(".")
    return name if name in RANK else name.split(".")[0]


def allowed(module: str, imported: str) -> bool:
    here, there = room(module), room(imported)
    if here == there or "" in (here, there):  # the package's own __init__, whose names are those of all rooms
        return True
    if here == "data":
        return there == "errors"
    if here in ("models", "guides") and there in ("config.names", "storage"):
        return False
    return RANK[there] <= RANK[here]


def test_rooms_import_what_is_below_them():
    found = {
        (module, imported)
        for module, path in FILES.items()
        for imported in imports(ast.parse(path.read_text(encoding="utf-8")))
        if not allowed(module, imported)
    }
    assert found <= ALLOWED, found - ALLOWED


def test_modules_import_each_other_in_no_circle():
    at_import = {
        module: {
            imported
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for imported in imports(node)
        }
        for module, path in FILES.items()
    }
    TopologicalSorter(at_import).prepare()


@pytest.mark.parametrize("folder", sorted({str(path.parent.relative_to(ROOT)) for path in FILES.values()}))
def test_rooms_are_small_and_say_what_they_are(folder):
    inside = [path for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"]
    assert len(inside) <= (FILES_AT_THE_TOP if folder == "mrsds_ppl" else FILES_OF_A_ROOM)
    long = {path.name for path in inside if len(path.read_text(encoding="utf-8").splitlines()) > LINES_OF_A_FILE}
    assert not long
    door = ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(door), "its __init__.py says in a sentence what lives there"


def test_every_room_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert set(listed) == {name for name, path in FILES.items() if path.name == "__init__.py"}


def test_few_arguments_and_fields_are_of_any_type():
    assert sum(path.read_text(encoding="utf-8").count(": Any") for path in FILES.values()) <= ANY
