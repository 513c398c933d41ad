"""Where input files are: paths, folders, globs and addresses, on any file system that Arrow or fsspec knows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.core import split_protocol
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs as pa_fs

from xmc.errors import DataError, DependencyError, boundary
from xmc.storage.small_files import require_regular

__all__ = ["ENDINGS", "ENDINGS_IN_WORDS", "InputFile", "ending_of", "file_system", "list_files", "local_file"]

_TYPED = (".parquet", ".pq", ".arrow", ".feather")
_TEXTS = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json")
_PACKED = (".gz", ".bz2", ".zst")
ENDINGS = (*_TYPED, *_TEXTS, *(f"{text}{packed}" for text in _TEXTS for packed in _PACKED))
"""Of names of files of records; text files may be packed."""
ENDINGS_IN_WORDS = f"{', '.join((*_TYPED, *_TEXTS))}, the latter {len(_TEXTS)} perhaps with {', '.join(_PACKED)} behind"
_WILDCARDS = "*?["
_LOCAL = (None, "file")
"""Protocols of addresses on this machine."""


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

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return split_protocol(self.address)[0] in _LOCAL

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
    """A file of this machine. DataError where there is none, and for what is no file, such as a device."""
    with boundary(DataError, f"{path} cannot be read"):
        status = require_regular(path)
    return InputFile(str(path), status.st_size, status.st_mtime_ns)


def file_system(address: str) -> tuple[pa_fs.FileSystem, str]:
    """The file system of a path or an address, and the path there.

    Arrow's file systems for local files, s3://, gs://, abfs:// and hdfs://, and fsspec's for every other protocol.
    Raises DataError for an address that none of them knows, or where it cannot be reached; DependencyError where fsspec needs
    a package for it.
    """
    protocol, _ = split_protocol(address)
    with boundary(DataError, f"{address} cannot be reached"):
        if protocol in _LOCAL:
            local = address if protocol is None else address.removeprefix("file://")
            return pa_fs.LocalFileSystem(), str(Path(local).absolute())  # workers may be elsewhere
        try:
            system, path = pa_fs.FileSystem.from_uri(address)
        except pa.ArrowInvalid:
            try:
                from_fsspec, path = fsspec.url_to_fs(address)
            except ImportError as error:
                raise DependencyError(f"{address} needs a package that is not installed: {error}") from error
            return pa_fs.PyFileSystem(pa_fs.FSSpecHandler(from_fsspec)), path
        return system, path


def list_files(address: str) -> list[InputFile]:
    """The files that a path, a folder (all the way down), a glob or an address names, by name.

    In a folder, files count whose names end with one of `ENDINGS` and begin with neither "_" nor ".".
    Raises DataError where there are none, and as `file_system`.
    """
    system, path = file_system(address)
    protocol = split_protocol(address)[0]
    prefix = "" if protocol in _LOCAL else f"{protocol}://"
    with boundary(DataError, f"{address} cannot be listed"):
        if any(mark in path for mark in _WILDCARDS) and system.get_file_info(path).type == pa_fs.FileType.NotFound:
            entries = system.get_file_info(sorted(_system(system).glob(path)))
            if protocol in _LOCAL:
                _require_files(_leading_nowhere(Path(Path(path).anchor).glob(path.lstrip("/"))))
        else:
            entries = [system.get_file_info(path)]
        files = []
        for info in entries:
            if info.type == pa_fs.FileType.Directory:
                inside = system.get_file_info(pa_fs.FileSelector(info.path, recursive=True))
                counting = [entry for entry in inside if _counts(entry)]
                _require_files([entry.path for entry in counting if entry.type != pa_fs.FileType.File])
                if protocol in _LOCAL:
                    _require_files(_links_to_nothing(info.path))
                files += counting
            elif info.type == pa_fs.FileType.File:
                files.append(info)
            elif len(entries) > 1 or info.type == pa_fs.FileType.Unknown:
                _require_files([info.path])
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
        info.type != pa_fs.FileType.Directory
        and info.path.endswith(ENDINGS)
        and not info.base_name.startswith(("_", "."))
    )


def _links_to_nothing(folder: str) -> list[str]:
    """Links in a folder that would count and lead nowhere; Arrow does not list them."""
    return _leading_nowhere(Path(root) / name for root, _, names in os.walk(folder) for name in names)


def _leading_nowhere(paths: Iterable[Path]) -> list[str]:
    counting = (path for path in paths if path.name.endswith(ENDINGS) and not path.name.startswith(("_", ".")))
    return [str(path) for path in counting if not path.exists()]


def _require_files(others: Sequence[str]) -> None:
    """Raise DataError where something that is no file stands among the input: its rows would be missing without a word."""
    if others:
        more = f", and so are {len(others) - 1:,} more" if len(others) > 1 else ""
        raise DataError(f"{others[0]} is a device, a pipe or a link to nothing{more}; name files, or take it away.")


def _system(system: pa_fs.FileSystem) -> Any:
    """An fsspec file system over the same files, which knows globs."""
    return ArrowFSWrapper(system)
