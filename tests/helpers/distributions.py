"""Wheels of this tree and of a stranger, and empty environments to install them in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("xmc", "kernels", "indexes", "training", "configs")
FILES = ("setup.py", "pyproject.toml", "xmc_retrieval.py", "README.md", "LICENSE")
OURS = "[console_scripts]\nxmc = xmc.cli:main\n"


def copy_of_the_tree(folder: Path) -> Path:
    """What a distribution is built from, without what earlier builds left in the tree."""
    for top in FOLDERS:
        shutil.copytree(ROOT / top, folder / top, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    return folder


def build_wheel(source: Path, folder: Path) -> Path:
    """The wheel that pip builds of a source tree with what is installed here."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def stranger(folder: Path) -> Path:
    """The wheel of another package `xmc`, with the files that the one on PyPI has."""
    package = folder / "source" / "xmc"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    setup = "from setuptools import setup\nsetup(name='xmc', version='0.0.1', packages=['xmc'], description='-')\n"
    (folder / "source" / "setup.py").write_text(setup)
    return build_wheel(folder / "source", folder)


class Environment:
    """A virtual environment with nothing in it, not even pip."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.bin = folder / "bin"
        (self.packages,) = folder.glob("lib/python*/site-packages")

    def pip(self, *arguments: object) -> None:
        """Run this process's pip on the environment; it asks no index."""
        command = [sys.executable, "-m", "pip", "--python", self.bin / "python", *arguments]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)

    def install(self, wheel: Path) -> None:
        """Install a wheel, without what it requires."""
        self.pip("install", "--no-deps", "--no-index", "--no-compile", wheel)

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in its own folder."""
        words = [str(self.bin / str(command[0])), *map(str, command[1:])]
        return subprocess.run(words, cwd=self.bin.parent, capture_output=True, text=True)
