"""What a disk may hold after a crash of the machine: replay of a recorded trace of writes, syncs and names.

The model is that of ALICE (Pillai et al., OSDI 2014), with what POSIX promises, and what usual file systems do:

- What a file holds is sure from its last fsync on. What was written since may be lost, zeros, cut in half, or there.
- An entry of a folder (a new file, a name, a removal) is sure from the folder's next fsync on. Those since may all be lost, or
  the first few of them be there; those of different folders independently of each other.
- A rename within a folder, and an exchange of two names, are there or not there, never half. One from folder to folder is
  there in both or in neither, as file systems with a journal have it.

The states of a prefix of the trace are: all unsynced lost; all names there and unsynced content lost, of zeros, or cut; and
mixtures drawn at random. Blocks within a file are not reordered: each file is written in sequence. A rename that the recording
library did not see (Rust programs call the kernel without libc) is known from the name under which the file is synced next, and
counts as made when the file was closed.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

__all__ = ["State", "Trace", "write_state"]

State = dict[str, bytes | None]
"""The content of each file by its path, None for a folder."""


@dataclass(eq=False)
class File:
    """durable: what is sure to be there. latest: what a reader sees now. dirty: whether they may differ."""

    durable: bytes = b""
    latest: bytes = b""
    dirty: bool = False


@dataclass(eq=False)
class Folder:
    """durable: entries that are sure to be there. pending: changes since, each with the number of its operation."""

    entries: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[tuple[int, dict[str, File | Folder | None]]] = field(default_factory=list)

    def change(self, number: int, **names: File | Folder | None) -> None:
        """Set or remove (None) entries, in one operation."""
        _apply(self.entries, names)
        self.pending.append((number, names))

    def sync(self) -> None:
        """All entries are sure."""
        self.durable, self.pending = dict(self.entries), []


def _apply(entries: dict[str, File | Folder], names: dict[str, File | Folder | None]) -> None:
    for name, node in names.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


class Trace:
    """The states of a folder that a crash may leave while a command writes."""

    def __init__(self, root: Path) -> None:
        """root: as it is before the command; all of it is on the disk."""
        self._root_path = root.resolve()
        self._nodes: dict[int, File | Folder] = {}
        self._folders: list[Folder] = []
        self._root = self._scan(self._root_path)
        self._number = 0
        self._renamed: dict[int, tuple[str, str]] = {}
        self.records: list[list[str]] = []
        self.times = {
            file.relative_to(root).as_posix(): file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()
        }

    def _scan(self, path: Path) -> Folder:
        folder = self._new_folder()
        for entry in path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                folder.entries[entry.name] = self._scan(entry)
            else:
                content = entry.read_bytes()
                folder.entries[entry.name] = self._nodes[entry.stat().st_ino] = File(content, content)
        folder.sync()
        self._nodes[path.stat().st_ino] = folder
        return folder

    def _new_folder(self) -> Folder:
        self._folders.append(Folder())
        return self._folders[-1]

    def states(self, copies: Path, mixtures: int = 2, seed: int = 0) -> Iterator[tuple[int, str, State]]:
        """(number of operations, kind, state) of all prefixes, each distinct state once. copies: where the trace is."""
        self.records = [line.split("\t") for line in (copies / "log").read_text().splitlines()]
        written = self._contents(copies)
        known: set[str] = set()
        for prefix in range(len(self.records) + 1):
            if prefix:
                self._number = prefix
                self._step(self.records[prefix - 1], written.get(prefix - 1, b""))
                if prefix - 1 in self._renamed:
                    self._rename_unseen(*self._renamed[prefix - 1])
            for kind, state in self._possible(prefix, mixtures, seed):
                digest = hashlib.sha256(repr(sorted(state.items())).encode()).hexdigest()
                if digest not in known:
                    known.add(digest)
                    yield prefix, kind, state

    def _contents(self, copies: Path) -> dict[int, bytes]:
        """The content of a file after each record that writes it, from the copy that was taken next."""
        contents: dict[int, bytes] = {}
        copied: dict[str, bytes] = {}
        synced: dict[str, str] = {}
        closed: dict[str, tuple[int, str]] = {}
        for place in range(len(self.records) - 1, -1, -1):
            kind, inode, *more = self.records[place]
            if kind == "close" and inode in synced:
                closed[inode] = place, synced[inode]
            elif kind == "sync":
                synced[inode] = more[1]
            elif kind == "create" and inode in closed:
                after, name = closed.pop(inode)
                if Path(name).parent == Path(more[0]).parent and name != more[0]:
                    self._renamed[after] = more[0], name
            if kind in ("sync", "close") and more[0] != "0":
                contents[place] = copied[inode] = (copies / more[0]).read_bytes()
            elif kind == "write":
                contents[place] = copied.get(inode, b"")[: int(more[0])].ljust(int(more[0]), b"\0")
            elif kind == "create":
                copied.pop(inode, None)
                synced.pop(inode, None)
        return contents

    def _step(self, record: list[str], content: bytes) -> None:
        kind, *values = record
        if kind in ("write", "close", "cut"):
            file = self._file(values[0])
            if kind != "close" or file.latest != content:
                file.latest, file.dirty = content, True
        elif kind == "create":
            self._nodes[int(values[0])] = file = File(dirty=False)
            self._change(values[1], file)
        elif kind == "mkdir":
            self._nodes[int(values[0])] = folder = self._new_folder()
            self._change(values[1], folder)
        elif kind == "sync":
            self._sync(int(values[0]), values[2], content)
        elif kind == "remove":
            self._change(values[0], None)
        elif kind == "link":
            self._change(values[1], self._node(values[0]))
        elif kind == "rename":
            self._rename(*values)
        else:
            assert kind == "exchange", record
            self._exchange(*values)

    def _sync(self, inode: int, path: str, content: bytes) -> None:
        node = self._nodes[inode]
        if isinstance(node, Folder):
            node.sync()
            return
        assert self._node(path) is node, path
        node.durable, node.latest, node.dirty = content, content, False

    def _rename_unseen(self, old: str, new: str) -> None:
        folder, name = self._place(old)
        if name in folder.entries:  # otherwise it was seen
            self._rename(old, new)

    def _rename(self, old: str, new: str) -> None:
        (source, before), (target, after) = self._place(old), self._place(new)
        node = source.entries[before]
        if source is target:
            source.change(self._number, **{before: None, after: node})
        else:
            source.change(self._number, **{before: None})
            target.change(self._number, **{after: node})

    def _exchange(self, first: str, second: str) -> None:
        (one, name), (other, another) = self._place(first), self._place(second)
        assert one is other, "names are exchanged within a folder"
        one.change(self._number, **{name: one.entries[another], another: one.entries[name]})

    def _change(self, path: str, node: File | Folder | None) -> None:
        folder, name = self._place(path)
        folder.change(self._number, **{name: node})

    def _place(self, path: str) -> tuple[Folder, str]:
        """The folder of an absolute path, and the name in it."""
        folder, (*parents, name) = self._root, Path(path).relative_to(self._root_path).parts
        for parent in parents:
            inner = folder.entries[parent]
            assert isinstance(inner, Folder), path
            folder = inner
        return folder, name

    def _node(self, path: str) -> File | Folder:
        folder, name = self._place(path)
        return folder.entries[name]

    def _file(self, inode: str) -> File:
        node = self._nodes[int(inode)]
        assert isinstance(node, File)
        return node

    def _possible(self, prefix: int, mixtures: int, seed: int) -> Iterator[tuple[str, State]]:
        yield "unsynced lost", _state(self._root, lambda folder: folder.durable, lambda file: file.durable)
        for kind, content in CONTENTS.items():
            yield f"names kept, content {kind}", _state(self._root, lambda folder: folder.entries, content)
        for mixture in range(mixtures):
            chosen = random.Random(f"{seed} {prefix} {mixture}")
            lost = self._lost(chosen)
            yield f"mixture {mixture}", _state(self._root, partial(_some, lost=lost), _drawn(chosen))

    def _lost(self, chosen: random.Random) -> dict[int, int]:
        """The operation from which on each folder's changes are lost, by the folder's id."""
        folders = self._folders
        first = {id(folder): _first_lost(folder, chosen) for folder in folders}
        for _ in folders:  # an operation in two folders is lost in both: until nothing changes
            gone = {number for folder in folders for number, _ in folder.pending if number >= first[id(folder)]}
            for folder in folders:
                hit = [number for number, _ in folder.pending if number in gone]
                first[id(folder)] = min([first[id(folder)], *hit])
        return first


def _first_lost(folder: Folder, chosen: random.Random) -> int:
    numbers = [number for number, _ in folder.pending]
    return chosen.choice([*numbers, 1 << 62])


def _some(folder: Folder, lost: dict[int, int]) -> dict[str, File | Folder]:
    entries = dict(folder.durable)
    for number, names in folder.pending:
        if number < lost[id(folder)]:
            _apply(entries, names)
    return entries


CONTENTS: dict[str, Callable[[File], bytes]] = {
    "lost": lambda file: file.durable,
    "of zeros": lambda file: _kept(file, bytes(len(file.latest))),
    "cut in half": lambda file: _kept(file, file.latest[: len(file.latest) // 2]),
    "there": lambda file: file.latest,
}


def _kept(file: File, unsynced: bytes) -> bytes:
    """What is there of a file whose unsynced content is replaced; what was durable and did not change stays."""
    if not file.dirty:
        return file.durable
    same = file.latest.startswith(file.durable)
    return file.durable + unsynced[len(file.durable) :] if same else unsynced


def _drawn(chosen: random.Random) -> Callable[[File], bytes]:
    return lambda file: chosen.choice(list(CONTENTS.values()))(file)


def _state(
    root: Folder, entries_of: Callable[[Folder], dict[str, File | Folder]], content_of: Callable[[File], bytes]
) -> State:
    state: State = {}

    def walk(folder: Folder, path: str) -> None:
        for name, node in sorted(entries_of(folder).items()):
            if isinstance(node, Folder):
                state[path + name] = None
                walk(node, f"{path}{name}/")
            else:
                state[path + name] = content_of(node)

    walk(root, "")
    return state


def write_state(state: State, folder: Path, times: Mapping[str, int] | None = None) -> None:
    """Make a folder that holds a state. times: of last changes, by path, for files that have one, in nanoseconds."""
    folder.mkdir()
    for name, content in state.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
            if times and name in times:
                os.utime(folder / name, ns=(times[name], times[name]))
