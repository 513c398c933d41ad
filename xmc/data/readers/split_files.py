"""Which split a file is of, by a word of its name, and which layout, by its first lines: for files called as people like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from xmc.data.files import TextForm
from xmc.data.files.addresses import local_file
from xmc.data.files.lines import text_lines
from xmc.errors import DataError

__all__ = ["files_by_split", "first_lines", "only_file", "split_of"]

WORDS = {
    "train": {"train", "training", "trn"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "tst"},
}
"""The words in the names of the files of each split."""
LOOKED_AT = 100
"""Lines of a file by which its layout is told."""
BEGINNING = 1 << 16
"""Characters of such a line that are looked at."""


def split_of(name: str) -> str | None:
    """The split that a word of a file's name says; None where none does."""
    words = re.findall("[a-z]+", name.lower())
    return next((split for split, of_split in WORDS.items() if of_split & set(words)), None)


def files_by_split(files: Iterable[Path]) -> dict[str, list[Path]]:
    """The files of each split, by name; in the order of `WORDS`."""
    found: dict[str, list[Path]] = {split: [] for split in WORDS}
    for file in sorted(files):
        if (split := split_of(file.name)) is not None:
            found[split].append(file)
    return {split: of_split for split, of_split in found.items() if of_split}


def only_file(files: Sequence[Path], what: str) -> Path:
    """The file where there is one. Raises DataError, which says what they are, where there are more."""
    if len(files) > 1:
        names = " and ".join(file.name for file in files)
        raise DataError(f"{files[0].parent} holds {names}, and one of them must be {what}; leave one there.")
    return files[0]


def first_lines(file: Path) -> list[str]:
    """The first lines of a text file, by which its layout is told, whether or not they are of its encoding; their beginnings
    where they are long."""
    return list(islice(text_lines(local_file(file), TextForm(max_line=BEGINNING), "\n", cut=True), LOOKED_AT))
