"""A program that damages the files of data sets at random, and looks at what conversion, validation and jobs make of them.

    python mutated_files.py FIRST LAST FOLDER ...

A folder holds `source`, a data set in some layout (a directory, or a file of records), and `there`, a converted one. Damaged by
the seeds FIRST to LAST - 1, every source must convert into a right data set, or be refused with an error of xmc that leaves the
data set at the destination as it was. The program prints what came out of each folder, by number, as JSON; it ends with 1 at
the first other outcome. The file `seed` in a folder says how far it came.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import random
import resource
import shutil
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from record_files import read_by_job

from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.files.addresses import ending_of
from xmc.data.readers import TabularColumns, open_source
from xmc.data.validate import validate
from xmc.errors import XMCError

MEMORY = 3 << 30
"""Bytes that a damaged file may take beside what the program takes anyway."""
SECONDS = 60
PIECES = [
    *(
        b'"',
        b'""',
        b",",
        b";",
        b"\t",
        b"\n",
        b"\r",
        b"\r\n",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xed\xa0\x80",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"null",
        b"NaN",
        b"-1",
        b"1e400",
        b"99999999999999999999",
        b"\\ud800",
        b"'",
        b"__label__",
    ),
    *(b" ", b"\xc3\xa9", b"\xf0\x9f\x9c\x9a", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff" * 8, b"1000000000"),
]
Random = random.Random


class TooLong(BaseException):
    """A file took more than SECONDS."""


def damaged(content: bytes, chance: Random) -> bytes:
    """Some content with one to four mutations."""
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        start = chance.randrange(len(content) + 1)
        length = chance.choice([1, 1, 2, 8, 64, 1000])
        piece = chance.choice([chance.choice(PIECES), chance.randbytes(length), content[start : start + length], b""])
        before, behind = content[:start], content[start + chance.choice([0, length]) :]
        content = chance.choice([before + piece + behind] * 6 + [before + piece * 50 + behind, before, behind])
    return content


def damage(source: Path, chance: Random) -> None:
    """Damage one of the files of a source; of a packed one what is packed, or the packed bytes."""
    files = sorted(file for file in ([source] if source.is_file() else source.rglob("*")) if file.is_file())
    file = chance.choice(files)
    content = file.read_bytes()
    packing: Any = {".gz": gzip, ".bz2": bz2}.get(file.suffix)
    if packing is not None and chance.random() < 0.5:
        file.write_bytes(packing.compress(damaged(packing.decompress(content), chance)))
    else:
        file.write_bytes(damaged(content, chance))


def outcome(folder: Path, seed: int) -> str:
    """What comes of a source with one file damaged."""
    chance = random.Random(seed)
    source = next(folder.glob("source*"))
    copy = folder / source.name.replace("source", "damaged")
    shutil.rmtree(copy, ignore_errors=True)
    copy.unlink(missing_ok=True) if copy.is_file() else None
    (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
    damage(copy, chance)
    there = folder / "there"
    before = {file.name: file.read_bytes() for file in there.iterdir()}
    read_as_job(copy)
    columns = TabularColumns(separator=";" if ".csv" in copy.name or ".tsv" in copy.name else None)
    try:
        if seed % 4 == 0:
            list(validate(open_source(copy, None, columns)))
        policy = ("error", "drop")[seed % 2]
        data = convert(open_source(copy, None, columns), there, on_bad_row=policy, overwrite=True).dataset
    except XMCError:
        assert {file.name: file.read_bytes() for file in there.iterdir()} == before, "the destination was changed"
        return "refused"
    require_sound(data, there)
    return f"converted ({policy})"


def require_sound(data: Dataset, there: Path) -> None:
    """A data set that was written is read, and its rows point at its labels."""
    assert Dataset.load(there).properties == data.properties
    for split in data.properties["splits"]:
        rows = data.split(split)
        assert rows.positives.shape == (len(rows), len(data.labels))
        assert all(isinstance(text, str) for text in rows.texts.to_pylist())
        assert len(set(rows.uids.to_pylist())) == len(rows)


def read_as_job(source: Path) -> None:
    """Read the files of records as a job does."""
    for file in [source] if source.is_file() else sorted(source.rglob("*")):
        if not ending_of(file.name):
            continue
        with contextlib.suppress(XMCError):
            read_by_job(file, rows_per_part=7)


def main(first: int, last: int, folders: list[Path]) -> int:
    """See the module."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGALRM, too_long)
    outcomes: dict[str, Counter[str]] = {folder.name: Counter() for folder in folders}
    for folder in folders:
        for seed in range(first, last):
            (folder / "seed").write_text(str(seed))
            signal.alarm(SECONDS)
            try:
                outcomes[folder.name][outcome(folder, seed)] += 1
            except BaseException:
                print(f"{folder.name}, seed {seed}", file=sys.stderr)
                traceback.print_exc()
                return 1
    print(json.dumps(outcomes))
    return 0


def too_long(*_: object) -> None:
    raise TooLong


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), [Path(folder) for folder in sys.argv[3:]]))
