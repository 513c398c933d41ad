"""Directories that are whole or absent: written under a temporary name, with a manifest, and swapped into place."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from xmc.errors import StoreError, cause_in_words
from xmc.storage.exchange import exchange, restore
from xmc.storage.files import sync
from xmc.storage.locks import alone, hold, is_at, release
from xmc.storage.manifests import LOG, TENSORBOARD, refuse_foreign_directory, write_manifest
from xmc.storage.temporaries import move_over, remove_abandoned, temporary_of

__all__ = ["atomic_directory", "read_unreplaced", "replaced_directory"]

REPLACED_AT_MOST = 100
"""A directory that is replaced so often while it is read cannot be read."""

T = TypeVar("T")


@contextlib.contextmanager
def atomic_directory(
    path: str | Path,
    kind: str,
    known: Mapping[str, str] | None = None,
    written: dict[str, Any] | None = None,
    **properties: Any,
) -> Iterator[Path]:
    """Yield an empty temporary directory that becomes `path`, with a manifest, when the block ends without exception.

    Parameters
    ----------
    path: destination. An existing directory is replaced whole, in one step where the system can exchange two names,
        and only if it holds a manifest of the same `kind`: nothing that xmc did not write is ever deleted.
    kind: what the directory is ("run", "index"); stored, and demanded again by `read_manifest`.
    known: SHA-256 of files by name, of those that the block has hashed; files must not change after that.
    written: filled with the manifest when the block has ended.
    properties: further JSON values stored in the manifest under "properties".

    Raises
    ------
    StoreError: `path` exists and is not a directory of that kind, or the system cannot write it (a full disk). What was at
        `path` is left as it was.
    """
    path = Path(path)
    refuse_foreign_directory(path, kind)
    with replaced_directory(path, moved=(TENSORBOARD,)) as temporary:
        yield temporary
        _make_readable(temporary)
        manifest = write_manifest(temporary, kind, properties, known or {})
        if written is not None:
            written.update(manifest)
        if (path / LOG).is_file():
            shutil.copyfile(path / LOG, temporary / LOG)
        refuse_foreign_directory(path, kind)  # still: it may have been long


@contextlib.contextmanager
def replaced_directory(path: str | Path, moved: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty temporary directory that takes the place of `path` when the block ends without exception.

    What is at `path` is replaced whole, in one step where the system can exchange two names; whether it may be is for the
    caller to find out before (see `atomic_directory`, which does). Of a link, what it points to is replaced.

    moved: patterns of folders that are moved over from what was there.

    Raises
    ------
    StoreError: the system cannot write it (a full disk). What was at `path` is left as it was.
    """
    named, held = path, None
    try:
        path = Path(path).resolve()
        temporary = temporary_of(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        restore(path)
        remove_abandoned(path, moved)
        temporary.mkdir()
        held = hold(temporary)
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself; no name
        raise StoreError(f"{named} cannot be written: {cause_in_words(error)}. Name another directory.") from error
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")):
            sync(file)
        sync(temporary)
        with alone(path):
            restore(path)
            if path.is_dir() and any(path.iterdir()):
                exchange(temporary, path)
                move_over(temporary, path, moved)
            else:
                temporary.replace(path)
        sync(path.parent)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{named} cannot be written: {cause_in_words(error)}. What was there before is as it was."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        release(held)


def _make_readable(directory: Path) -> None:
    """Let files be read by whom the directory lets: safetensors writes files that are for their owner alone."""
    mode = directory.stat().st_mode & 0o666
    for file in directory.rglob("*"):
        if file.is_file() and file.stat().st_mode & 0o666 != mode:
            file.chmod(mode)


def read_unreplaced(path: str | Path, read: Callable[[], T]) -> T:
    """What `read` reads of the stored directory `path`, called again where another took its place meanwhile.

    So files of two directories are never taken together. StoreError as `read` raises it, or where there is no directory.
    """
    path = Path(path)
    for _ in range(REPLACED_AT_MOST):
        restore(path)
        try:
            held = os.open(path, os.O_RDONLY)  # while it is open, no other directory gets its inode
        except OSError:
            return read()  # which says what is missing
        try:
            content = read()
        except StoreError:
            if is_at(path, held):
                raise
        else:
            if is_at(path, held):
                return content
        finally:
            os.close(held)
    raise StoreError(f"{path} is being replaced again and again while it is read; read it when it is left alone.")
