"""Environments in which FAISS is missing, is a build for GPUs on a machine without one, is there twice, or crashes."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path

from distributions import Environment

_OF_BUILDS_FOR_GPUS = """
def get_num_gpus():
    return 0

class StandardGpuResources:
    pass

class GpuIndexCagra:
    pass
"""
"""Names that a build for GPUs adds, as they are on a machine without one."""
CRASHES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"


def linked_environment(folder: Path, *without: str) -> Environment:
    """An environment with links to everything that is installed here, but for packages whose names begin so."""
    environment = Environment(folder)
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        kept = not entry.name.startswith((*without, "_virtualenv", "__pycache__"))
        if kept and not (environment.packages / entry.name).exists():
            (environment.packages / entry.name).symlink_to(entry)
    return environment


def install_stub(environment: Environment, distribution: str, version: str, code: str | None) -> None:
    """Install a distribution of FAISS with a package of its own; without code, only what pip knows of it."""
    name = distribution.replace("-", "_")
    metadata = environment.packages / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    if code is not None:
        package = environment.packages / "faiss"
        package.mkdir()
        (package / "__init__.py").write_text(code)


def faiss_without_a_card() -> str:
    """The code of a build for GPUs as it is on a machine without one: the FAISS that is installed here, and further names."""
    spec = importlib.util.find_spec("faiss")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    code = (folder / "__init__.py").read_text(encoding="utf-8")
    return f"__path__.append({str(folder)!r})\n{code}\n{_OF_BUILDS_FOR_GPUS}"
