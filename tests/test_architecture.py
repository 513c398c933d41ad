"""The rooms of the house and the direction of their imports, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAPPED = {"kernels": "xmc.kernels", "indexes": "xmc.indexes", "training": "xmc.training"}

ORDER = (
    "namesake", "version", "shown", "errors", "cached", "registry", "arrays", "terminal", "progress", "storage", "faults",
    "kernels", "config", "metrics", "data",
    "encoders", "indexes", "calibration", "light",
    "search", "evaluation", "training",
    "batch", "serve", "interop", "report", "doctor",
    "cli",
)  # fmt: skip
"""A room imports rooms before it and none after it. `xmc/__init__.py` and `__main__.py` stand above all of them."""


def modules() -> dict[str, Path]:
    """The files of the package by their dotted names."""
    found = {}
    for top in ("xmc", *MAPPED):
        for file in sorted((ROOT / top).rglob("*.py")):
            parts = list(file.relative_to(ROOT / top).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            found[".".join([MAPPED.get(top, top), *parts])] = file
    return found


def room_of(module: str) -> str:
    """The room that a module of the package is in; "" for the package itself."""
    parts = module.split(".")
    return "" if len(parts) < 2 or parts[1] == "__main__" else parts[1]


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports from the package, inside functions and for types too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports by a relative name"
            if (node.module or "").split(".")[0] == "xmc":
                for alias in node.names:
                    yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "xmc":
                    yield node.lineno, alias.name


def test_every_room_is_in_the_order() -> None:
    assert {room_of(module) for module in modules()} - {""} == set(ORDER)


def test_imports_run_one_way() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for module, file in modules().items()
        if room_of(module)
        for line, name in imports(file)
        if room_of(name) in ORDER and ORDER.index(room_of(name)) > ORDER.index(room_of(module))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_between_files() -> None:
    """Not inside a room either: what two files need of each other belongs into a third."""
    known = modules()
    graph: dict[str, set[str]] = {module: set() for module in known}
    for module, file in known.items():
        for _, name in imports(file):
            target = name if name in known else name.rpartition(".")[0]
            if target in known and target != module and room_of(target):
                graph[module].add(target)
    circle = _circle(graph)
    assert circle is None, " -> ".join(circle or [])


def _circle(graph: dict[str, set[str]]) -> list[str] | None:
    """The modules of a circle, the first of them again at the end; None where there is none."""
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        path.append(module)
        for target in sorted(graph[module]):
            circle = visit(target)
            if circle is not None:
                return circle
        done.add(path.pop())
        return None

    return next((circle for module in sorted(graph) if (circle := visit(module)) is not None), None)


@pytest.mark.parametrize(
    ("graph", "circle"),
    [({"a": {"b"}, "b": set()}, None), ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, ["b", "c", "b"])],
)
def test_a_circle_is_found(graph: dict[str, set[str]], circle: list[str] | None) -> None:
    assert _circle(graph) == circle


def test_helpers_of_tests_and_benchmarks_have_names_of_their_own() -> None:
    """Tests of benchmarks import from both folders: of two files of one name, which is imported would be the order's choice."""
    folders = (ROOT / "benchmarks", *(folder for folder in (ROOT / "tests").iterdir() if list(folder.glob("*.py"))))
    found: dict[str, list[str]] = {}
    for file in (file for folder in folders for file in folder.glob("*.py") if not file.name.startswith("test_")):
        found.setdefault(file.name, []).append(str(file.relative_to(ROOT)))
    twice = {name: where for name, where in found.items() if len(where) > 1}
    assert set(twice) <= {"__init__.py", "conftest.py"}, twice


def class_names(file: Path) -> list[str]:
    """The public classes that a file defines."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string that stands as a statement: those of modules, classes, functions, fields and constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, " ".join(node.value.value.split())


def test_no_class_name_is_defined_twice() -> None:
    """A public name has one meaning in the whole package."""
    defined: dict[str, list[str]] = {}
    for module, file in modules().items():
        for name in class_names(file):
            defined.setdefault(name, []).append(module)
    assert {name: where for name, where in defined.items() if len(where) > 1} == {}


UNCLEAR = ("so many", "of which")
"""Words of docstrings that can be understood only with the sentence before them, or not at all."""


def test_docstrings_are_in_plain_words() -> None:
    unclear = [
        f"{file.relative_to(ROOT)}:{line}: {words!r}"
        for file in modules().values()
        for line, text in docstrings(ast.parse(file.read_text(encoding="utf-8")))
        for words in UNCLEAR
        if words in text.lower()
    ]
    assert not unclear, "\n".join(unclear)


def test_docstrings_are_found() -> None:
    source = 'LIMIT = 3\n"""So\n  many."""\nclass A:\n    """One."""\n    def b(self):\n        """Two."""\n        return 1\n'
    assert sorted(text for _, text in docstrings(ast.parse(source))) == ["One.", "So many.", "Two."]
