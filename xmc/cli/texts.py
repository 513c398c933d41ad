"""Query texts for commands that need no labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xmc.errors import ConfigError

if TYPE_CHECKING:
    from xmc.batch import Columns

__all__ = ["is_file_of_texts", "require_no_columns", "texts_of"]


def texts_of(source: str, split: str, run: Path, columns: Columns) -> list[str]:
    """Query texts of a file of records, or of a data set's split; a row without a text has "".

    columns: as of a job; see xmc.batch.columns for those that are not named.
    Raises DataError for a file that cannot be read, or a row of it that cannot; ConfigError as `require_no_columns`.
    """
    from xmc.batch.columns import columns_of_input
    from xmc.data.dataset import Dataset
    from xmc.data.files import open_file

    if is_file_of_texts(source):
        found = columns_of_input(columns, run, source)
        (texts,) = open_file(Path(source), [found.wanted[1]], found.form).columns()
    else:
        require_no_columns(columns, source)
        texts = Dataset.load(source).split(split).texts
    return [text or "" for text in texts.to_pylist()]


def is_file_of_texts(source: str) -> bool:
    """Whether a source is a file of records, and not a data set."""
    from xmc.data.files.addresses import ending_of

    path = Path(source)
    return path.is_file() and bool(ending_of(path.name))


def require_no_columns(columns: Columns, source: str | None) -> None:
    """Raise ConfigError where columns or an encoding were named though no file of texts is read."""
    named = {
        "text-column": columns.text,
        "encoding": columns.encoding,
        "delimiter": columns.delimiter,
        "max-line": columns.max_line,
    }
    for option, value in named.items():
        if value is not None:
            given = "none is given" if source is None else f"{source} is none"
            raise ConfigError(f"--{option} is for a file of texts, and {given}; leave it out.")
