"""Other packages with the import name `xmc`: what is installed of them, and the sentence that says what to do.

A stranger's package on PyPI has the name that this one is imported by; pip lets the one overwrite files of the other. And
before it was called `xmc-retrieval`, this package was installed as `xmc` itself. The file uses nothing of the package, so that
`xmc_retrieval.py` can load it where `xmc` is the stranger's.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

__all__ = ["require_no_namesake", "why_not_beside"]

OTHER = re.compile(r"xmc(-[^-]+.*)?\.(dist|egg)-info", re.IGNORECASE)
"""Folder of metadata of a package that pip knows as `xmc`."""
THIS = re.compile(r"xmc_retrieval-[^-]+\.dist-info", re.IGNORECASE)
"""Folder of metadata of this package where it is installed; a build leaves `.egg-info` in a checkout, which says nothing."""
REMEDY = "Run: pip uninstall xmc xmc-retrieval, then install xmc-retrieval again."


def require_no_namesake(folders: Iterable[str] | None = None) -> None:
    """Raise ImportError beside a stranger's package `xmc`; warn beside an installation of this one under its former name.

    folders: where packages are installed; by default, sys.path. They are listed, and nothing else is read where no folder of
    metadata has the name. An installation under the former name alone, as a checkout has it that was updated, is left alone.
    """
    strangers, former, current = _installed(sys.path if folders is None else folders)
    if strangers:
        raise ImportError(_refusal(strangers[0]))
    if former and current:
        warnings.warn(
            f"xmc-retrieval is installed a second time under its former name, xmc, in {former[0].parent}: which of the two "
            f"is imported depends on their order. {REMEDY}",
            stacklevel=3,
        )


def why_not_beside(folders: Iterable[str] | None = None) -> str | None:
    """The sentence of `require_no_namesake` about a stranger's package, None where there is none."""
    strangers, _, _ = _installed(sys.path if folders is None else folders)
    return _refusal(strangers[0]) if strangers else None


def _refusal(stranger: Path) -> str:
    version = re.sub(r"^xmc-|(-py[\d.]+)?\.(dist|egg)-info$", "", stranger.name, flags=re.IGNORECASE)
    return (
        f"Another package named xmc (version {version}, in {stranger.parent}) is installed beside xmc-retrieval. Both are "
        f"imported as xmc, and their files overwrite each other. {REMEDY}"
    )


def _installed(folders: Iterable[str]) -> tuple[list[Path], list[Path], bool]:
    """Metadata of strangers, metadata of this package under its former name, and whether it is there under its own."""
    strangers: list[Path] = []
    former: list[Path] = []
    current = False
    for folder in dict.fromkeys(folders):
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 (pathlib makes an object of each name)
        except OSError:
            continue  # a zip file, an entry of an import hook, nothing at all
        for name in names:
            if name[:3].lower() != "xmc":
                continue
            current = current or THIS.fullmatch(name) is not None
            if OTHER.fullmatch(name):
                metadata = Path(folder, name)
                if not _is_former(metadata):
                    strangers.append(metadata)
                elif metadata.suffix == ".dist-info":
                    former.append(metadata)
    return strangers, former, current


def _is_former(metadata: Path) -> bool:
    """Whether metadata under the name `xmc` are this package's own: it has always brought the command `xmc`."""
    try:
        return "xmc.cli:main" in (metadata / "entry_points.txt").read_text(encoding="utf-8")
    except OSError:
        return False
