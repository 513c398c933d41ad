"""Readers of the field's data layouts, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xmc.data.readers.bag_of_words import BagOfWordsSource
from xmc.data.readers.canonical import CanonicalSource
from xmc.data.readers.dexml import DexmlSource
from xmc.data.readers.tabular import Columns, TabularSource
from xmc.data.readers.xml_json import XmlJsonSource
from xmc.data.readers.xml_sparse import XmlSparseSource
from xmc.data.rows import Source
from xmc.errors import DataError

__all__ = ["FORMATS", "Columns", "open_source"]

FORMATS = ("canonical", "xml-json", "xml-sparse", "bag-of-words", "dexml", "tabular")


def open_source(path: str | Path, format: str | None = None, columns: Columns | None = None) -> Source:
    """Open a directory (or, for tabular data, a file) in one of FORMATS; without `format`, the one its files show.

    Raises DataError when the path does not exist, the format is unknown, or the files do not fit any.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    tabular: Callable[[Path], Source] = lambda where: TabularSource(where, columns or Columns())  # noqa: E731
    readers: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Source]]] = {
        "canonical": (CanonicalSource.fits, CanonicalSource),
        "xml-json": (XmlJsonSource.fits, XmlJsonSource),
        "dexml": (DexmlSource.fits, DexmlSource),
        "xml-sparse": (XmlSparseSource.fits, XmlSparseSource),
        "tabular": (TabularSource.fits, tabular),
        "bag-of-words": (BagOfWordsSource.fits, BagOfWordsSource),
    }
    if format is not None:
        if format not in readers:
            raise DataError(f"There is no format {format!r}; choose one of {', '.join(FORMATS)}.")
        fits, build = readers[format]
        if not fits(path):
            raise DataError(f"{path} does not hold the files of the format {format}.")
        return build(path)
    for fits, build in readers.values():
        if fits(path):
            return build(path)
    raise DataError(f"{path} holds no data set in a known format ({', '.join(FORMATS)}).")
