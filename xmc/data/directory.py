"""Where a data set is written: a directory that is whole or not there, and never in place of anything else."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from xmc.data.tables import read_properties
from xmc.errors import DataError, InputError, StoreError
from xmc.storage.directories import replaced_directory

__all__ = ["SHIPPED", "data_set_directory", "found_data_set", "require_free_directory"]

SHIPPED = Path(__file__).parent / "shipped"
"""The data sets that come with xmc."""
_WRITTEN = re.compile(
    r"dataset\.json|labels\.parquet|(queries|filter)-.+\.parquet|images-.+\.(arrow|broken\.csv|parts)|\..+\.tmp"
)
"""Names of what is written into the directory of a data set, and may be written again."""


def found_data_set(name_or_directory: str | Path) -> tuple[Path, dict[str, Any]]:
    """The directory of a shipped data set by name, or a canonical one, and what its dataset.json says.

    Raises DataError when there is neither, InputError for what is neither a name nor a path.
    """
    if not isinstance(name_or_directory, (str, os.PathLike)):
        raise InputError(
            f"A data set must be a Dataset, the name of a shipped one or a directory, but is of type "
            f"{type(name_or_directory).__name__}: {name_or_directory!r:.100}."
        )
    shipped = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
    name = str(name_or_directory)
    directory = SHIPPED / name if name in shipped else Path(name_or_directory)
    properties = read_properties(directory)
    if properties is None:
        raise DataError(
            f"{name_or_directory} is neither a shipped data set ({', '.join(shipped)}) nor a directory with a "
            f"dataset.json; `xmc data convert` makes one from other formats."
        )
    return directory, properties


@contextlib.contextmanager
def data_set_directory(directory: str | Path, overwrite: bool = False, written: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty temporary directory that becomes the data set `directory` when the block ends without exception.

    Until then, and whenever it does not end so (an exception, a kill), a data set that was there stays as it was.

    overwrite: a data set may be there, and is replaced whole. Nothing else is ever replaced. written: names of files that are
    written anew, and so not lost.

    Raises StoreError as `require_free_directory`, and where the system cannot write.
    """
    require_free_directory(directory, overwrite, written)
    path = Path(directory).resolve()  # of a link, what it points to
    embedded = [parts.name for parts in path.glob("images-*.parts")]  # by a job that is to go on
    with replaced_directory(path, moved=embedded) as temporary:
        yield temporary
        require_free_directory(directory, overwrite, written)  # still: it may have been long


def require_free_directory(directory: str | Path, overwrite: bool = False, written: Collection[str] = ()) -> None:
    """Raise StoreError where a data set cannot be written to `directory`, before the work whose result it is to hold.

    That is where there is something else than a data set, or a data set and `overwrite` is not set, or with it, files that
    people put beside the tables, such as judgements, unless they are `written` anew; and for the data sets that come with xmc.
    """
    path = Path(directory)
    if not path.exists():
        return
    if not path.is_dir():
        raise StoreError(f"{directory} is a file; name a directory for the data set.")
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return
    if SHIPPED.resolve() in path.resolve().parents:
        raise StoreError(f"{directory} comes with xmc and stays as it is; name another directory.")
    try:
        found = read_properties(path)
    except DataError:
        found = None
    if found is None:
        raise StoreError(
            f"{directory} exists and is not a data set of xmc (it holds {names[0]}); name another directory, or empty it first."
        )
    if not overwrite:
        raise StoreError(
            f"{directory} already holds the data set {found['name']!r}; name another directory, or replace it with --overwrite "
            f"(in Python overwrite=True)."
        )
    foreign = [name for name in names if not _WRITTEN.fullmatch(name) and name not in written]
    if foreign:
        raise StoreError(
            f"{directory} holds {foreign[0]}, which would be lost with the data set that is there; move it away first, or name "
            f"another directory."
        )
