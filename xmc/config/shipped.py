"""Configurations that come with the package, by name: the folder configs/ of the source tree, which a wheel holds too."""

from __future__ import annotations

from pathlib import Path

from xmc.errors import ConfigError
from xmc.registry import did_you_mean

__all__ = ["config_file", "shipped_configs"]

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
"""Where a wheel has them, and where the source tree has them."""


def shipped_configs() -> dict[str, Path]:
    """The file of each configuration by its name, such as "static", in the order of names."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    return (
        {}
        if folder is None
        else {file.stem: file for file in sorted(folder.glob("*.yaml"), key=lambda file: file.stem)}
    )


def config_file(given: str | Path) -> Path:
    """The file that a path, or the name of a shipped configuration, stands for; a file of that name goes first.

    Raises ConfigError for what is neither, with the nearest name.
    """
    path, names = Path(given), shipped_configs()
    if path.exists():
        return path
    if str(given) in names:
        return names[str(given)]
    near = did_you_mean(path.stem, names)
    raise ConfigError(
        f"The configuration {given} cannot be read: there is no such file, and no configuration of that name is shipped.{near}"
    )
