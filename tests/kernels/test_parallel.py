"""Parallel kernels: all of them go through the one guard, which threads and forked children may enter."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kernel_calls
import pytest
from kernel_calls import CALLS

ROOT = Path(__file__).resolve().parents[2]
MAPPED = {"kernels": "xmc.kernels", "indexes": "xmc.indexes", "training": "xmc.training"}
GUARD = "xmc.kernels.parallel"


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package, by its dotted name."""
    for top in ("xmc", *MAPPED):
        for file in sorted((ROOT / top).rglob("*.py")):
            parts = file.relative_to(ROOT / top).with_suffix("").parts
            yield ".".join([MAPPED.get(top, top), *parts]), ast.parse(file.read_text(encoding="utf-8"))


def is_call_of(node: ast.AST, name: str) -> bool:
    """Whether a node calls what is called `name`, perhaps as an attribute of something."""
    return isinstance(node, ast.Call) and name in (getattr(node.func, "id", None), getattr(node.func, "attr", None))


def guarded(tree: ast.Module) -> list[ast.FunctionDef]:
    """The functions of a module that the guard decorates."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [node for node in functions if any(is_call_of(entry, "parallel_kernel") for entry in node.decorator_list)]


def test_every_parallel_kernel_goes_through_the_guard() -> None:
    unguarded = []
    for module, tree in sources():
        inside = {node for function in guarded(tree) for node in ast.walk(function)}
        for node in ast.walk(tree):
            parallel = isinstance(node, ast.Call) and any(word.arg == "parallel" for word in node.keywords)
            loop = is_call_of(node, "prange") and node not in inside
            if module != GUARD and (parallel or loop):
                unguarded.append(f"{module}:{node.lineno}")  # type: ignore[attr-defined]
    assert unguarded == []


def test_every_parallel_kernel_is_called_here() -> None:
    assert sorted(f"{module}.{node.name}" for module, tree in sources() for node in guarded(tree)) == sorted(CALLS)


@pytest.mark.parametrize(
    ("layer", "way"), [("workqueue", "threads"), pytest.param("omp", "child", marks=pytest.mark.slow)]
)
def test_every_parallel_kernel_may_be_called_from_threads_and_forked_children(layer: str, way: str) -> None:
    """Where OpenMP is missing, numba's layer is "workqueue", and it aborts the process when two threads enter it."""
    environment = os.environ | {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, kernel_calls.__file__, way]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (0, f"{layer}\n"), done.stderr
