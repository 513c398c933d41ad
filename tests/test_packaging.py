"""What a wheel holds: the tree, as setup.py walks it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAPPED = {"kernels": "xmc/kernels", "indexes": "xmc/indexes", "training": "xmc/training"}


def in_the_tree() -> set[str]:
    """Where each file of the tree belongs in an installed package."""
    names = set()
    for top in ("xmc", *MAPPED):
        for file in (ROOT / top).rglob("*"):
            relative = file.relative_to(ROOT / top).as_posix()
            if file.is_file() and "__pycache__" not in file.parts:
                names.add(f"{MAPPED.get(top, top)}/{relative}")
    return names


def test_a_wheel_holds_what_the_tree_holds(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for top in ("xmc", *MAPPED):
        shutil.copytree(ROOT / top, source / top, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == in_the_tree()
