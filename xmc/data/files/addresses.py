"""Where input files are: paths, folders, globs and addresses, on any file system that Arrow or fsspec knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.core import split_protocol
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs as pa_fs

from xmc.errors import DataError, DependencyError

__all__ = ["ENDINGS", "ENDINGS_IN_WORDS", "InputFile", "ending_of", "file_system", "list_files", "local_file"]

_TYPED = (".parquet", ".pq", ".arrow", ".feather")
_TEXTS = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json")
_PACKED = (".gz", ".bz2", ".zst")
ENDINGS = (*_TYPED, *_TEXTS, *(f"{text}{packed}" for text in _TEXTS for packed in _PACKED))
"""Of names of files of records; text files may be packed."""
ENDINGS_IN_WORDS = f"{', '.join((*_TYPED, *_TEXTS))}, the latter {len(_TEXTS)} perhaps with {', '.join(_PACKED)} behind"
_WILDCARDS = "*?["


@dataclass(frozen=True)
class InputFile:
    """A file of a job's input: its address, its size in bytes, and when it was last changed, in nanoseconds (0: not known)."""

    address: str
    size: int
    modified: int

    @property
    def name(self) -> str:
        """Its name in its folder."""
        return self.address.rpartition("/")[2]

    @property
    def ending(self) -> str:
        """Which of `ENDINGS` its name has, without that of packing; "" for none."""
        return ending_of(self.address)

    def open(self) -> pa.NativeFile:
        """The file, open for reading at any position."""
        system, path = file_system(self.address)
        return system.open_input_file(path)

    def stream(self) -> pa.NativeFile:
        """The file, open for reading from beginning to end, unpacked where its name ends with .gz, .bz2 or .zst."""
        system, path = file_system(self.address)
        return system.open_input_stream(path)


def ending_of(name: str) -> str:
    """Which of `ENDINGS` a name has, without that of packing; "" for none."""
    if not name.endswith(ENDINGS):
        return ""
    bare = next((name.removesuffix(packed) for packed in _PACKED if name.endswith(packed)), name)
    return next(ending for ending in (*_TYPED, *_TEXTS) if bare.endswith(ending))


def local_file(path: Path) -> InputFile:
    """A file of this machine. DataError where there is none."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return InputFile(str(path), status.st_size, status.st_mtime_ns)


def file_system(address: str) -> tuple[pa_fs.FileSystem, str]:
    """The file system of a path or an address, and the path there.

    Arrow's file systems for local files, s3://, gs://, abfs:// and hdfs://, and fsspec's for every other protocol.
    Raises DataError for an address that none of them knows, or where it cannot be reached; DependencyError where fsspec needs
    a package for it.
    """
    protocol, _ = split_protocol(address)
    try:
        if protocol in (None, "file"):
            local = address if protocol is None else address.removeprefix("file://")
            return pa_fs.LocalFileSystem(), str(Path(local).absolute())  # workers may be elsewhere
        try:
            system, path = pa_fs.FileSystem.from_uri(address)
        except pa.ArrowInvalid:
            from_fsspec, path = fsspec.url_to_fs(address)
            return pa_fs.PyFileSystem(pa_fs.FSSpecHandler(from_fsspec)), path
        return system, path
    except ImportError as error:
        raise DependencyError(f"{address} needs a package that is not installed: {error}") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{address} cannot be reached: {error}") from error


def list_files(address: str) -> list[InputFile]:
    """The files that a path, a folder (all the way down), a glob or an address names, by name.

    In a folder, files count whose names end with one of `ENDINGS` and begin with neither "_" nor ".".
    Raises DataError where there are none, and as `file_system`.
    """
    system, path = file_system(address)
    protocol = split_protocol(address)[0]
    prefix = "" if protocol in (None, "file") else f"{protocol}://"
    try:
        if any(mark in path for mark in _WILDCARDS) and system.get_file_info(path).type == pa_fs.FileType.NotFound:
            entries = system.get_file_info(sorted(_system(system).glob(path)))
        else:
            entries = [system.get_file_info(path)]
        files = []
        for info in entries:
            if info.type == pa_fs.FileType.Directory:
                inside = system.get_file_info(pa_fs.FileSelector(info.path, recursive=True))
                files += [entry for entry in inside if _counts(entry)]
            elif info.type == pa_fs.FileType.File:
                files.append(info)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{address} cannot be listed: {error}") from error
    if not files and [info.type for info in entries] == [pa_fs.FileType.NotFound]:
        raise DataError(f"{address} does not exist.")
    if not files:
        raise DataError(f"{address} names no file; files of a folder must end with {ENDINGS_IN_WORDS}.")
    named = {f"{prefix}{info.path}": info for info in files}
    inputs = [InputFile(name, int(info.size or 0), int(info.mtime_ns or 0)) for name, info in sorted(named.items())]
    for file in inputs:
        if not file.ending:
            raise DataError(f"{file.address} ends with none of {ENDINGS_IN_WORDS}, so its format is not known.")
    return inputs


def _counts(info: pa_fs.FileInfo) -> bool:
    return bool(
        info.type == pa_fs.FileType.File and info.path.endswith(ENDINGS) and not info.base_name.startswith(("_", "."))
    )


def _system(system: pa_fs.FileSystem) -> Any:
    """An fsspec file system over the same files, which knows globs."""
    return ArrowFSWrapper(system)
