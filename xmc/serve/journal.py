"""A journal: numbered changes in a file, each of them on disk before it counts, followed by any number of processes.

The first line is the header; each further line is a change as JSON with its number and a SHA-256 of both. One process writes at
a time, under a lock; all others read on from where they stopped, and one `stat` tells them that there is nothing new. A line
that a killed process left without its end is cut off by the next that writes. What is in the run is left out when the
file is written anew, see `Writer.cut`; who has the file before open reads that to its end first.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xmc.errors import InputError, StoreError
from xmc.storage.files import atomic_file, sync
from xmc.storage.fingerprints import fingerprint_of_json
from xmc.storage.locks import hold

__all__ = ["Entry", "Header", "Journal", "Writer"]

FORMAT_VERSION = 1
logger = logging.getLogger("xmc.serve")


@dataclass(frozen=True)
class Entry:
    """A change. number: one more than that of the change before. content: JSON values."""

    number: int
    content: Mapping[str, Any]

    def line(self) -> bytes:
        """As a line of the file. InputError for values that JSON does not have."""
        try:
            text = json.dumps(
                {"number": self.number, "checksum": self._checksum(), "change": self.content}, allow_nan=False
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"A change must consist of values that JSON has: {error}.") from error
        return text.encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Entry:
        """What `line` made. KeyError, TypeError or ValueError for anything else, also a wrong checksum."""
        values = json.loads(line)
        entry = cls(int(values["number"]), dict(values["change"]))
        if values["checksum"] != entry._checksum():
            raise ValueError("it does not fit its checksum")
        return entry

    def _checksum(self) -> str:
        return fingerprint_of_json([self.number, self.content])


@dataclass(frozen=True)
class Header:
    """What a journal says of itself.

    journal: its name, made at random. after: number of the change before the first one of the file. compacted: number of the
    last change that is in the run whose fingerprint is `run`.
    """

    journal: str
    after: int = 0
    compacted: int = 0
    run: str = ""

    def line(self) -> bytes:
        """As the first line of the file."""
        return json.dumps({"xmc": "journal", "format_version": FORMAT_VERSION, **asdict(self)}).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes, file: Path) -> Header:
        """What `line` made; StoreError for anything else."""
        try:
            values = json.loads(line)
            if values["xmc"] != "journal":
                raise ValueError("it is no journal")
            if values["format_version"] != FORMAT_VERSION:
                raise StoreError(
                    f"{file} has format version {values['format_version']}; this xmc reads version {FORMAT_VERSION}."
                )
            return cls(str(values["journal"]), int(values["after"]), int(values["compacted"]), str(values["run"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{file} does not begin as a journal of changes does ({error!r}). Put a copy of it back, or move it away: the "
                f"run is then without the changes in it."
            ) from error


class Journal:
    """A journal as one process reads it, and writes it. Not for several threads at once.

    header: None before there is a file. last: number of the last change that was read; 0 before. pending: changes that were
    read, in their order; who makes one takes it out.
    """

    def __init__(self, file: Path) -> None:
        """The file may be missing. Nothing is read yet."""
        self.file = file
        self.header: Header | None = None
        self.last = 0
        self.pending: deque[Entry] = deque()
        self._handle: int | None = None
        self._offset, self._lines, self._next = 0, 0, 1
        self._seen: tuple[int, int, int] | None = None

    @property
    def size(self) -> int:
        """Bytes that were read."""
        return self._offset

    def unchanged(self) -> bool:
        """Whether there is nothing new since the last `follow`: one look at the file's size and date."""
        return self._signature() == self._seen

    def follow(self) -> None:
        """Read the changes that are new since it was called last, all of the file at first, into `pending`.

        StoreError for a line that is damaged, which it names, and for a file that is no journal.
        """
        if self.unchanged():
            return
        if self._handle is not None:
            self._read()
        if not self._is_open():
            self._open()

    @contextlib.contextmanager
    def writing(self, after: int = 0, compacted: int = 0, run: str = "") -> Iterator[Writer]:
        """While the block runs, no other process writes; begin with `follow`.

        after, compacted, run: see Header; for where there is no journal yet. StoreError where the file cannot be written.
        """
        try:
            lock = self._locked(Header(uuid.uuid4().hex, after, compacted, run))
        except OSError as error:
            raise StoreError(f"{self.file} cannot be written, so that no change can be kept: {error}.") from error
        try:
            yield Writer(self)
        finally:
            if lock is not None:
                os.close(lock)

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            os.close(self._handle)
        self._handle, self._seen = None, None

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            status = self.file.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _is_open(self) -> bool:
        """Whether the file that is open is the one at its path, or there is none there."""
        signature = self._signature()
        if self._handle is None:
            return signature is None
        return signature is None or os.fstat(self._handle).st_ino == signature[0]

    def _open(self) -> None:
        """Read the changes of the file at the path that are behind the last one."""
        self.close()
        self._handle = os.open(self.file, os.O_RDWR)
        self._offset = self._lines = 0
        self.header = None
        self._read()

    def _read(self) -> None:
        """Read the changes of the whole lines from where reading stopped; what is behind them is read when it is whole."""
        assert self._handle is not None  # `follow` has opened it
        status = os.fstat(self._handle)
        content = _read_from(self._handle, self._offset, status.st_size)
        whole = content.rfind(b"\n") + 1
        for line in content[:whole].splitlines(keepends=True):
            torn = b"\0" in line and self._offset + len(line) == status.st_size
            if torn:  # the power failed while it was written: pages of zeros
                break
            entry = self._parsed(line)
            self._lines, self._offset = self._lines + 1, self._offset + len(line)
            if entry is not None and entry.number > self.last:
                self.last = entry.number
                self.pending.append(entry)
        finished = self._offset == status.st_size
        self._seen = (status.st_ino, status.st_size, status.st_mtime_ns) if finished else None

    def _parsed(self, line: bytes) -> Entry | None:
        """None for the header."""
        if self.header is None:
            self.header = Header.from_line(line, self.file)
            self.last = max(self.last, self.header.after)
            self._next = self.header.after + 1
            return None
        try:
            entry = Entry.from_line(line)
            if entry.number != self._next:
                raise ValueError(f"it has the number {entry.number}")
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"Line {self._lines + 1} of {self.file}, the change {self._next}, is damaged ({error}), and those after it "
                f"need it. Put back a copy of the file, or keep the changes before it alone: "
                f"head -n {self._lines} {self.file} > kept && mv kept {self.file}"
            ) from error
        self._next += 1
        return entry

    def _locked(self, header: Header) -> int | None:
        """A lock on the file at the path, made with this header where there is none. Closing it ends it; None without locks."""
        while True:
            with contextlib.suppress(FileNotFoundError):
                lock = hold(self.file)
                if lock is None or os.fstat(lock).st_ino == self.file.stat().st_ino:
                    return lock
                os.close(lock)  # the file was written anew while this process waited
                continue
            self._create(header)

    def _create(self, header: Header) -> None:
        """Make the file, unless another process has made it."""
        temporary = self.file.parent / f".{self.file.name}.{uuid.uuid4().hex[:12]}.tmp"
        try:
            temporary.write_bytes(header.line())
            sync(temporary)
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self.file)
            sync(self.file.parent)
        finally:
            temporary.unlink(missing_ok=True)


class Writer:
    """Writes a journal that was read to its end, and whose lock is held."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def append(self, content: Mapping[str, Any]) -> Entry:
        """Write a change, and wait until it is on the disk.

        InputError for values that JSON does not have; StoreError where it cannot be written: the file is as it was then.
        """
        journal = self._journal
        assert journal._handle is not None  # it was read
        entry = Entry(journal.last + 1, content)
        line = entry.line()
        handle, end = journal._handle, journal._offset
        left = os.fstat(handle).st_size - end
        try:
            if left:
                logger.warning(
                    "%s ends with %d bytes of a change that was not written whole, nor confirmed to anybody; they are cut off",
                    journal.file,
                    left,
                )
                os.ftruncate(handle, end)
            _write_at(handle, line, end)
            os.fsync(handle)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, end)
            raise StoreError(f"{journal.file} cannot be written, so that the change is not made: {error}.") from error
        journal._read()
        journal.pending.pop()  # it is for the caller to make it
        return entry

    def cut(self, compacted: int, run: str) -> None:
        """Write the file anew without the changes that the run held when it was compacted last.

        compacted: number of the last change that the run holds now. run: its fingerprint.

        Changes since the compaction before stay: a run that somebody has read before this one was written lacks them.
        """
        journal = self._journal
        assert journal.header is not None  # it was read
        before = journal.header
        header = Header(before.journal, max(before.compacted, before.after), compacted, run)
        lines = journal.file.read_bytes().splitlines(keepends=True)[1:]
        kept = [line for line in lines if line.endswith(b"\n") and Entry.from_line(line).number > header.after]
        self._write(header, kept)

    def renew(self, after: int) -> None:
        """Write the file anew without any change, for such as come after one that the file does not have."""
        assert self._journal.header is not None  # it was read
        self._write(replace(self._journal.header, after=after), [])

    def _write(self, header: Header, lines: Sequence[bytes]) -> None:
        with atomic_file(self._journal.file) as temporary:
            temporary.write_bytes(b"".join([header.line(), *lines]))
        self._journal.follow()


def _read_from(handle: int, start: int, end: int) -> bytes:
    blocks = []
    while start < end and (block := os.pread(handle, end - start, start)):
        blocks.append(block)
        start += len(block)
    return b"".join(blocks)


def _write_at(handle: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(handle, content, offset)
        content, offset = content[written:], offset + written
