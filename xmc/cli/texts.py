"""Query texts for commands that need no labels."""

from __future__ import annotations

from pathlib import Path

__all__ = ["texts_of"]


def texts_of(source: str, split: str) -> list[str]:
    """Query texts of a file of records with a column text, or of a data set's split; a row without a text has "".

    Raises DataError for a file that cannot be read, or a row of it that cannot.
    """
    from xmc.data.dataset import Dataset
    from xmc.data.files import WantedColumn, open_file
    from xmc.data.files.addresses import ending_of

    path = Path(source)
    if path.is_file() and ending_of(path.name):
        (texts,) = open_file(path, [WantedColumn("text", "text")]).columns()
    else:
        texts = Dataset.load(source).split(split).texts
    return [text or "" for text in texts.to_pylist()]
