"""Environments in which FAISS is missing, is a build for GPUs on a machine without one, is there twice, or crashes."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path

from distributions import Environment

NO_CARD = """
import pathlib
_real = pathlib.Path({real!r})
__path__.append(str(_real))
exec(compile((_real / "__init__.py").read_text(), str(_real / "__init__.py"), "exec"))

def get_num_gpus():
    return 0

class StandardGpuResources:
    pass

class GpuIndexCagra:
    pass
"""
"""A build for GPUs as it is on a machine without one: FAISS for the processor, and the names that such a build adds."""
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


def real_faiss() -> Path:
    """The folder of the FAISS that is installed here."""
    spec = importlib.util.find_spec("faiss")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
