"""Which split a file is of, by a word of its name, for layouts whose files are called as people like."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["files_by_split", "split_of"]

WORDS = {
    "train": {"train", "training", "trn"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "tst"},
}
"""The words in the names of the files of each split."""


def split_of(name: str) -> str | None:
    """The split that a word of a file's name says; None where none does."""
    words = re.findall("[a-z]+", name.lower())
    return next((split for split, of_split in WORDS.items() if of_split & set(words)), None)


def files_by_split(files: Iterable[Path]) -> dict[str, Path]:
    """The file of each split, the first by name where several are of one; in the order of `WORDS`."""
    found: dict[str, Path] = {}
    for file in sorted(files):
        if (split := split_of(file.name)) is not None:
            found.setdefault(split, file)
    return {split: found[split] for split in WORDS if split in found}
