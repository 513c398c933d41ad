"""A hook of mkdocs: a tree of links in which each package stands where it is imported from, for the reference.

kernels/, indexes/ and training/ are xmc.kernels, xmc.indexes and xmc.training through setup.py, which the reader of docstrings
cannot follow; nor does it look into a folder without __init__.py, as kernels/ is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["on_startup"]

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "build" / "sources" / "xmc"
MAPPED = ("kernels", "indexes", "training")


def on_startup(**_: Any) -> None:
    """Called by mkdocs before it reads anything."""
    _link_all(ROOT / "xmc", TREE)
    for package in MAPPED:
        _link_all(ROOT / package, TREE / package)
        if not (TREE / package / "__init__.py").exists():
            (TREE / package / "__init__.py").touch()


def _link_all(source: Path, target: Path) -> None:
    """Links to everything in a folder; those whose end is gone are removed."""
    target.mkdir(parents=True, exist_ok=True)
    for link in target.iterdir():
        if not link.exists():
            link.unlink()
    for entry in source.iterdir():
        if not (target / entry.name).is_symlink():
            (target / entry.name).symlink_to(entry)
