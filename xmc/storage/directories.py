"""Directories that are whole or absent: atomic writes, a manifest with checksums, verification on load.

A stored directory (a run, an index) holds a `manifest.json` that lists every other file in it with size and SHA-256; of
a stored directory inside another, such as a run's index, the outer one lists the manifest alone, which vouches for the rest.
It is written under a temporary name beside its destination, synced to disk, and swapped into place.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from xmc.errors import StoreError
from xmc.storage.fingerprints import sha256_file, sha256_quietly
from xmc.storage.libraries import library_versions
from xmc.version import __version__

fcntl: Any  # absent on Windows
try:
    fcntl = importlib.import_module("fcntl")
except ImportError:
    fcntl = None

__all__ = [
    "FORMAT_VERSION",
    "LOG",
    "MANIFEST",
    "TENSORBOARD",
    "atomic_directory",
    "atomic_file",
    "hold",
    "read_manifest",
    "read_unreplaced",
    "refuse_foreign_directory",
    "replaced_directory",
    "require_free",
    "sync",
]

FORMAT_VERSION = 4
MANIFEST = "manifest.json"
LOG = "metrics.jsonl"
"""A log that grows while a directory is rewritten: carried over, never listed in the manifest."""
TENSORBOARD = "tensorboard"
"""A folder of logs that are open while a directory is rewritten: moved over, never listed in the manifest."""
ABANDONED_AFTER = 60.0
"""Seconds after which a temporary directory that no process holds is one that a killed process left."""
REPLACED_AT_MOST = 100
"""A directory that is replaced so often while it is read cannot be read."""

T = TypeVar("T")


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`, on an exception remove it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(
    path: str | Path, kind: str, known: Mapping[str, str] | None = None, **properties: Any
) -> Iterator[Path]:
    """Yield an empty temporary directory that becomes `path`, with a manifest, when the block ends without exception.

    Parameters
    ----------
    path: destination. An existing directory is replaced whole, in one step where the system can exchange two names,
        and only if it holds a manifest of the same `kind`: nothing that xmc did not write is ever deleted.
    kind: what the directory is ("run", "index"); stored, and demanded again by `read_manifest`.
    known: SHA-256 of files by name, of those that the block has hashed; files must not change after that.
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
        _write_manifest(temporary, kind, properties, known or {})
        if (path / LOG).is_file():
            shutil.copyfile(path / LOG, temporary / LOG)
        refuse_foreign_directory(path, kind)  # still: it may have been long


@contextlib.contextmanager
def replaced_directory(path: str | Path, moved: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty temporary directory that takes the place of `path` when the block ends without exception.

    What is at `path` is replaced whole, in one step where the system can exchange two names; whether it may be is for the
    caller to find out before (see `atomic_directory`, which does).

    moved: folders that are moved over from what was there.

    Raises
    ------
    StoreError: the system cannot write it (a full disk). What was at `path` is left as it was.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary.mkdir()
        held = hold(temporary)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}. Name another directory.") from error
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")):
            sync(file)
        sync(temporary)
        if path.is_dir() and any(path.iterdir()):
            _exchange(temporary, path)
            for name in moved:
                if (temporary / name).is_dir():
                    (temporary / name).replace(path / name)
        else:
            temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}. What was there before is as it was.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if held is not None:
            os.close(held)


def read_unreplaced(path: str | Path, read: Callable[[], T]) -> T:
    """What `read` reads of the stored directory `path`, called again where another took its place meanwhile.

    So files of two directories are never taken together. StoreError as `read` raises it, or where there is no directory.
    """
    path = Path(path)
    for _ in range(REPLACED_AT_MOST):
        try:
            held = os.open(path, os.O_RDONLY)  # while it is open, no other directory gets its inode
        except OSError:
            return read()  # which says what is missing
        try:
            content = read()
        except StoreError:
            if _is_at(path, held):
                raise
        else:
            if _is_at(path, held):
                return content
        finally:
            os.close(held)
    raise StoreError(f"{path} is being replaced again and again while it is read; read it when it is left alone.")


def refuse_foreign_directory(path: Path, kind: str) -> None:
    """Raise StoreError where writing a directory of `kind` to `path` would replace something that is not one."""
    if not path.exists() or (
        path.is_dir() and not any(entry.name not in (LOG, TENSORBOARD) for entry in path.iterdir())
    ):
        return
    if not path.is_dir():
        raise StoreError(f"{path} is a file; name a directory for the {kind}.")
    try:
        found = json.loads((path / MANIFEST).read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        found = None
    if found != kind:
        raise StoreError(f"{path} exists and is not an xmc {kind}; name another directory or remove it first.")


def require_free(path: Path, kind: str, overwrite: bool = False) -> None:
    """Raise StoreError where a directory of `kind` cannot be written to `path`, before the work whose result it is to hold.

    That is where `path` holds something else, or a directory of that kind and `overwrite` is not set.
    """
    refuse_foreign_directory(path, kind)
    if not overwrite and (path / MANIFEST).exists():
        raise StoreError(f"{path} already holds a {kind}; name another directory, or overwrite it explicitly.")


def read_manifest(path: str | Path, kind: str, verify: bool = True, quietly: bool = False) -> dict[str, Any]:
    """Read the manifest of the directory `path` and verify the size and SHA-256 of every file that it lists.

    verify: False leaves the files to a later call. quietly: no progress is reported, and no thread started.

    Raises
    ------
    StoreError: no such directory, no or broken manifest, another kind or format version, or a file that is missing,
        truncated, or changed since it was written; the message names it.
    """
    path = Path(path)
    manifest_file = path / MANIFEST
    if not path.is_dir():
        wrong = "is a file" if path.exists() else "does not exist"
        raise StoreError(f"{path} {wrong}; name the directory of a saved {kind}.")
    try:
        manifest = json.loads(manifest_file.read_text(encoding="utf-8"))
        files = manifest["files"]
        found, version = manifest["kind"], manifest["format_version"]
        if not isinstance(manifest["properties"], dict):
            raise TypeError("properties")
        entries = [(str(name), int(entry["size"]), str(entry["sha256"])) for name, entry in files.items()]
    except OSError as error:
        raise StoreError(f"{path} holds no {MANIFEST}, so it is not a saved {kind}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{manifest_file} is not a manifest written by xmc ({error!r}).") from error
    if found != kind:
        raise StoreError(f"{path} holds a saved {found}; a saved {kind} is asked for.")
    if version != FORMAT_VERSION:
        raise StoreError(f"{path} has format version {version}; this xmc reads version {FORMAT_VERSION}.")
    if verify:
        if quietly:
            for entry in entries:
                _verify_file(path, *entry, sha256_quietly)
            return dict(manifest)
        with ThreadPoolExecutor() as pool:  # hashing lets other threads run
            for verified in [pool.submit(_verify_file, path, *entry, sha256_file) for entry in entries]:
                verified.result()
    return dict(manifest)


def _verify_file(root: Path, name: str, size: int, digest: str, digest_of: Callable[[Path], str]) -> None:
    file = root / name
    if root.resolve() not in file.resolve().parents:
        raise StoreError(f"{root / MANIFEST} lists {name!r}, which lies outside of {root}.")
    if not file.is_file():
        raise StoreError(f"{file} is missing; the directory is not whole. Copy it again or train again.")
    actual = file.stat().st_size
    if actual != size:
        raise StoreError(f"{file} has {actual} bytes where the manifest says {size}: it was truncated or edited.")
    if digest_of(file) != digest:
        raise StoreError(f"{file} does not match its SHA-256 in {MANIFEST}: it was edited or is corrupt.")


def _write_manifest(root: Path, kind: str, properties: dict[str, Any], known: Mapping[str, str]) -> None:
    inner = {manifest.parent for manifest in root.rglob(MANIFEST)}
    listed = [
        file
        for file in sorted(root.rglob("*"))
        if file.is_file() and (file.name == MANIFEST or not inner & set(file.parents))
    ]
    names = [file.relative_to(root).as_posix() for file in listed]
    new = [name for name in names if name not in known]
    with ThreadPoolExecutor() as pool:
        digests = {**known, **dict(zip(new, pool.map(lambda name: sha256_file(root / name), new), strict=True))}
    files = {name: {"size": (root / name).stat().st_size, "sha256": digests[name]} for name in names}
    manifest = {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "libraries": {"python": sys.version.split()[0], "xmc": __version__, **library_versions()},
        "properties": properties,
        "files": files,
    }
    (root / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file or directory is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def hold(directory: Path, wait: bool = True) -> int | None:
    """A lock by which other processes see that somebody writes this directory, until it is closed; None without locks.

    wait: False raises BlockingIOError where another process has it.
    """
    if fcntl is None:
        return None
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of writing `path`: temporary directories that nobody holds, and that are not new."""
    if fcntl is None:
        return
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if not left.is_dir() or time.time() - left.stat().st_mtime < ABANDONED_AFTER:
                continue
            descriptor = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)


def _exchange(first: Path, second: Path) -> None:
    """Swap two names: atomically with Linux's renameat2(RENAME_EXCHANGE), elsewhere with three renames."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2 is not None and renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0:
        return
    aside = first.with_suffix(".old")
    second.replace(aside)
    first.replace(second)
    aside.replace(first)
