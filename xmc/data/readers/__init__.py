"""Readers of the field's data layouts, by name, and the choice among them."""

from __future__ import annotations

from pathlib import Path

from xmc.data.readers.annif import AnnifSource
from xmc.data.readers.bag_of_words import BagOfWordsSource
from xmc.data.readers.beir import BeirSource
from xmc.data.readers.canonical import CanonicalSource
from xmc.data.readers.dexml import DexmlSource
from xmc.data.readers.fasttext import FastTextSource
from xmc.data.readers.pecos import PecosSource
from xmc.data.readers.tabular import TabularSource
from xmc.data.readers.xml_json import XmlJsonSource
from xmc.data.readers.xml_sparse import XmlSparseSource
from xmc.data.sources import RowSource, TabularColumns
from xmc.errors import DataError
from xmc.registry import Registry

__all__ = ["READERS", "TabularColumns", "open_source"]

READERS: Registry[type[RowSource]] = Registry(
    "data format",
    {
        reader.format: reader
        for reader in (
            CanonicalSource,
            XmlJsonSource,
            DexmlSource,
            XmlSparseSource,
            BeirSource,
            AnnifSource,
            PecosSource,
            TabularSource,
            BagOfWordsSource,
            FastTextSource,
        )
    },
)
"""The readers by the names of their layouts. Without a name the first one that fits reads a path, so the order matters. Another
package adds a layout with READERS.register(name, reader)."""


def open_source(path: str | Path, format: str | None = None, columns: TabularColumns | None = None) -> RowSource:
    """Open a directory (or, for tabular data, a file) in one of the layouts of READERS; without `format`, the one its files
    show.

    columns: names of columns, for tabular data. Raises DataError when the path does not exist or the files do not fit,
    ConfigError for an unknown format.
    """
    path, columns = Path(path), columns or TabularColumns()
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    try:
        if format is not None:
            reader = READERS[format]
            if not reader.readable(path):
                raise DataError(f"{path} does not hold the files of the format {format}.")
            return reader(path, columns)
        for reader in READERS.values():
            if reader.fits(path):
                return reader(path, columns)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    raise DataError(
        f"{path} holds no data set in a known format ({', '.join(READERS)}). A table is named itself, or is called "
        f"train, validation or test and ends with .csv, .tsv, .jsonl or .parquet."
    )
