"""What dataset.json lists: the files of a data set that are read, with the size and SHA-256 of each.

A data set holds what xmc wrote into it: a table or images that are missing, not listed or different are refused. A file is
verified when it is first read. Data sets of versions before have no listing, and are read as they are.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xmc.data.tables import FILES, file_entry, names_read, read_properties, write_properties
from xmc.errors import DataError, StoreError
from xmc.storage.files import atomic_file
from xmc.storage.manifests import is_entry, verify_files

__all__ = ["Listing"]

_BEFORE = "before"
"""Key of a file's entry while the file is replaced: what it was before, None for nothing; both are right."""
logger = logging.getLogger("xmc.data")


class Listing:
    """The files of an opened data set, each verified once."""

    def __init__(self, directory: Path | None, properties: Mapping[str, Any]) -> None:
        """Raises DataError for a listing of another form, and where files are missing, or not listed, by their names."""
        self.directory, self._verified = directory, set[str]()
        self.entries: dict[str, dict[str, Any]] | None = None
        if directory is None or properties.get(FILES) is None:
            return
        entries = properties[FILES]
        if not isinstance(entries, dict) or not all(map(_is_entry, entries.values())):
            raise DataError(
                f"{directory / 'dataset.json'} has a list of files that xmc did not write. {self._remedy()}"
            )
        self.entries = dict(entries)
        for name in names_read(properties["splits"]):
            if (directory / name).exists() != (name in self.entries) and not self._is_being_replaced(name):
                self._refuse(name)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled with a directory that other working directories find."""
        return {**vars(self), "directory": self.directory and self.directory.absolute()}

    def require(self, name: str) -> Path:
        """A file of the directory, verified. DataError where it is not as it was written."""
        assert self.directory is not None
        file = self.directory / name
        if name in self._verified:
            return file
        if self.entries is None:
            if not self._verified:
                logger.info(
                    "%s has no list of its files, and is read as it is; `xmc data seal` makes one", self.directory
                )
        elif name not in self.entries or not file.exists():
            self._refuse(name)
        else:
            self._verify(name, self.entries[name])
        self._verified.add(name)
        return file

    def require_all(self) -> None:
        """Verify all files; DataError as `require`."""
        for name in self.entries or ():
            self.require(name)

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Yield a path to which a file is written that takes the place of `name`, and is in the listing then.

        A process that is killed at any moment leaves a data set with the file before, or with the new one. Afterwards
        dataset.json is to be written once more, with `entries`. Call it while nobody else writes the directory.
        """
        assert self.directory is not None
        described = read_properties(self.directory) or {}
        with atomic_file(self.directory / name) as temporary:
            yield temporary
            if self.entries is not None:
                self.entries = dict(described.get(FILES) or self.entries)  # of another process too
                entry = file_entry(temporary)
                both = {**entry, _BEFORE: self.entries.get(name)}
                write_properties(self.directory, described, {**self.entries, name: both})
                self.entries[name] = entry
        self._verified.discard(name)

    def _verify(self, name: str, entry: Mapping[str, Any]) -> None:
        assert self.directory is not None
        accepted = [entry, entry[_BEFORE]] if entry.get(_BEFORE) is not None else [entry]
        for number, right in enumerate(accepted, 1):
            try:
                verify_files(self.directory, {name: right}, what="dataset.json")
            except StoreError as error:
                if number == len(accepted):
                    raise DataError(f"{error} {self._remedy()}") from error
            else:
                return

    def _is_being_replaced(self, name: str) -> bool:
        entry = (self.entries or {}).get(name)
        return entry is not None and _BEFORE in entry and entry[_BEFORE] is None

    def _refuse(self, name: str) -> None:
        assert self.directory is not None
        file = self.directory / name
        if file.exists():
            raise DataError(
                f"{file} is not among the files that dataset.json lists: somebody put it there. Move it away, or, where you "
                f"trust it, list it with `xmc data seal {self.directory}`."
            )
        raise DataError(f"{file} is missing, which dataset.json lists. {self._remedy()}")

    def _remedy(self) -> str:
        return (
            f"Copy the data set again, or, where it was changed on purpose, list it anew with "
            f"`xmc data seal {self.directory}`."
        )


def _is_entry(entry: Any) -> bool:
    return is_entry(entry) and (entry.get(_BEFORE) is None or is_entry(entry[_BEFORE]))
