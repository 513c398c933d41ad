"""A conversion of a damaged source: it makes a sound data set, or it refuses and leaves what was at its destination."""

from __future__ import annotations

from pathlib import Path

from fuzzing.folders import files_of
from fuzzing.targets import Case
from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.readers import TabularColumns, open_source
from xmc.data.validate import validate
from xmc.errors import XMCError

__all__ = ["convert_safely", "require_sound", "write_there"]


def write_there(folder: Path) -> None:
    """What is at the destination before: a small data set."""
    Dataset.from_lists("there", ["red", "white"], {"train": (["red", "white"], [[0], [1]])}).save(folder / "there")


def convert_safely(source: Path, case: Case, format: str | None = None) -> None:
    """Convert, validating first now and then. Raises an error of xmc as the conversion does."""
    there = case.place / "there"
    before = files_of(there)
    columns = TabularColumns(separator=";" if ".csv" in source.name or ".tsv" in source.name else None)
    policy = case.chance.choice(["error", "drop"])
    try:
        if case.chance.random() < 0.25:
            list(validate(open_source(source, format, columns)))
        data = convert(open_source(source, format, columns), there, on_bad_row=policy, overwrite=True).dataset
    except XMCError:
        assert files_of(there) == before, "a conversion that was refused changed what was at its destination"
        left = [file.name for file in case.place.iterdir() if file.name != "there"]
        assert not left, f"a conversion that was refused left {left}"
        raise
    require_sound(data, there)


def require_sound(data: Dataset, there: Path) -> None:
    """A data set that was written is read, and its rows point at its labels."""
    assert Dataset.load(there).properties == data.properties, "another data set is read than was written"
    for split in data.properties["splits"]:
        rows = data.split(split)
        assert rows.positives.shape == (len(rows), len(data.labels)), "positives do not fit the labels"
        assert len(rows) == data.properties["splits"][split], "rows are missing"
        assert all(isinstance(text, str) for text in rows.texts.to_pylist()), "a text is missing"
        assert len(set(rows.uids.to_pylist())) == len(rows), "two rows have one uid"
