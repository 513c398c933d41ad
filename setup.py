"""Packaging: every folder with Python files below xmc/, kernels/, indexes/ and training/ is a package.

configs/ is the package xmc.configs, of YAML files alone.

The top-level folders kernels/, indexes/ and training/ are the packages xmc.kernels, xmc.indexes and xmc.training: a bare
top-level import name `kernels` would shadow another published package. xmc_retrieval.py is the command `xmc`.
"""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
MAPPED = {"kernels": "xmc.kernels", "indexes": "xmc.indexes", "training": "xmc.training"}


def packages() -> dict[str, str]:
    """The folder of each package by the package's name, both relative to this file."""
    found = {}
    for top in ("xmc", *MAPPED):
        for file in sorted((ROOT / top).rglob("*.py")):
            folder = file.parent.relative_to(ROOT)
            found[".".join([MAPPED.get(top, top), *folder.parts[1:]])] = folder.as_posix()
    return {**found, "xmc.configs": "configs"}


setup(
    packages=list(packages()),
    package_dir=packages(),
    py_modules=["xmc_retrieval"],
    package_data={
        "xmc": ["py.typed"],
        "xmc.configs": ["*.yaml"],
        "xmc.data": ["shipped/*/*"],
        "xmc.serve": ["page/*"],
        "xmc.report": ["template.html", "page.css", "page.js"],
    },
)
