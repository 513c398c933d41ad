"""Where a data set is written: a directory that is whole or not there, and never in place of anything else."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from xmc.data.tables import read_properties
from xmc.errors import DataError, StoreError
from xmc.storage.directories import replaced_directory

__all__ = ["SHIPPED", "data_set_directory", "require_free_directory"]

SHIPPED = Path(__file__).parent / "shipped"
"""The data sets that come with xmc."""
_WRITTEN = re.compile(
    r"dataset\.json|labels\.parquet|(queries|filter)-.+\.parquet|images-.+\.(arrow|broken\.csv|parts)|\..+\.tmp"
)
"""Names of what is written into the directory of a data set, and may be written again."""


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
