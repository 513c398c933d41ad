"""The list of a data set's files, made anew from what people put there or changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmc.data.dataset import Dataset
from xmc.data.tables import FILES, file_entry, names_read, read_properties, write_properties
from xmc.errors import DataError
from xmc.storage.locks import alone

__all__ = ["Sealed", "seal"]


@dataclass(frozen=True)
class Sealed:
    """Names of the files that were not listed before, those that were others, and those that are gone."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def seal(directory: str | Path) -> Sealed:
    """Read the tables and images of a data set directory, and list them in its dataset.json as they are now.

    Counts, and the fingerprint where anything but judgements changed, are made anew.

    Raises DataError where there is no data set, one that comes with xmc, and for tables and images that do not fit.
    """
    path = Path(directory)
    with alone(path):
        properties = read_properties(path)
        if properties is None:
            raise DataError(f"{path} holds no dataset.json; `xmc data convert` makes a data set from other formats.")
        before: dict[str, Any] = properties.pop(FILES, None) or {}
        now = {name: file_entry(path / name) for name in names_read(properties["splits"]) if (path / name).exists()}
        added = tuple(name for name in now if name not in before)
        removed = tuple(name for name in before if name not in now)
        changed = tuple(name for name in now if name in before and now[name]["sha256"] != before[name].get("sha256"))
        if not all(name.startswith("judged-") for name in (*added, *changed, *removed)):
            properties.pop("fingerprint", None)
        data = Dataset(properties, path, {})
        data.writable_directory()
        properties["labels"] = len(data.labels)
        for split in data.splits:
            properties["splits"][split] = len(data.split(split))
            data.judgements(split)
            data.filter(split)
            data.evidence(split)
        for name in data.image_names:
            data.images(name)
        data.properties |= {"labels": properties["labels"], "splits": properties["splits"]}
        write_properties(path, data.described(), now)
    return Sealed(added, changed, removed)
