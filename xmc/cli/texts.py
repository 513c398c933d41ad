"""Query texts for commands that need no labels."""

from __future__ import annotations

from pathlib import Path

__all__ = ["texts_of"]


def texts_of(source: str, split: str) -> list[str]:
    """Query texts of a Parquet file, or of a data set's split."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from xmc.data.dataset import Dataset
    from xmc.errors import DataError

    if not Path(source).is_file():
        column = Dataset.load(source).split(split).texts
    else:
        try:
            column = pq.read_table(source, columns=["text"])["text"].cast(pa.string())
        except (OSError, KeyError, pa.ArrowException) as error:
            raise DataError(f"{source} cannot be read as Parquet with a column text: {error}") from error
    return [text or "" for text in column.to_pylist()]
