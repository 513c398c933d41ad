"""What a reader of data sets is: the contract of all layouts that `xmc data convert` and `xmc data validate` read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa

from xmc.data.evidence.source_rows import EvidenceRows
from xmc.data.files import TextForm
from xmc.data.images.ragged import RaggedImages
from xmc.data.rows import Defect, Row
from xmc.errors import DataError

__all__ = ["RowSource", "TabularColumns", "WrappedSource"]


@dataclass(frozen=True)
class TabularColumns:
    """Names of columns, for layouts that have named columns, and how text files are written.

    uid: None for the column "uid" where a file has it; without, a query's uid is its row number, from 0. labels: a list, or a
    string that `separator` cuts. relevance: one number for each label. rejected: the labels that were judged not relevant, as
    `labels` has the relevant ones. labelled: false where nothing is known of a query. These three are None for a column of
    that name where a file has it. label_uid, label_text: of a label
    table. separator, encoding, delimiter, max_line: as in xmc.data.files.TextForm. label_prefix: of labels in fastText's
    layout, None for "__label__". language: of the names of a vocabulary in Annif's layout, None for English, or the only one.
    group: queries of one value stay together where the data set is split; None for none.
    """

    uid: str | None = None
    text: str = "text"
    labels: str = "labels"
    relevance: str | None = None
    rejected: str | None = None
    separator: str | None = None
    label_uid: str = "uid"
    label_text: str = "text"
    encoding: str | None = None
    delimiter: str | None = None
    max_line: int | None = None
    label_prefix: str | None = None
    language: str | None = None
    group: str | None = None
    labelled: str | None = None

    @property
    def form(self) -> TextForm:
        """How text files are written."""
        return TextForm(self.encoding, self.delimiter, self.separator, self.max_line)

    @property
    def named(self) -> dict[str, str]:
        """The values that are not None, by name: what is kept with a data set, for jobs that read files like its source."""
        return {name: value for name, value in asdict(self).items() if value is not None and name != "max_line"}


class RowSource(ABC):
    """A data set in some layout; each reader is a subclass, registered in xmc.data.readers.READERS. All iterators stream.

    A layout that can say that a label is not relevant gives it the relevance 0, or lists it in Row.rejected.
    """

    format: ClassVar[str]
    """The layout's name in READERS and in `--format`."""
    has_uids: ClassVar[bool] = True
    """Whether uids come from the source (and may be duplicate) or are line numbers."""
    filter_unit: ClassVar[Literal["line", "row"]] = "line"
    """What the line of a filter pair counts."""
    name: str
    """The data set's name."""
    splits: tuple[str, ...]

    @abstractmethod
    def __init__(self, path: Path, columns: TabularColumns) -> None:
        """The data set at a path that fits. columns: names of columns are ignored by layouts that have none."""

    @classmethod
    @abstractmethod
    def fits(cls, path: Path) -> bool:
        """Whether the path, a directory or a file, holds the files of this layout."""

    @classmethod
    def readable(cls, path: Path) -> bool:
        """Whether the path can be read as this layout where the layout is named; by default where it fits."""
        return cls.fits(path)

    @abstractmethod
    def labels(self) -> Iterator[Row | Defect]:
        """The label table, in row order."""

    @abstractmethod
    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """The queries of a split, after `labels` has been read.

        labels: the number of labels, for headers to be checked against.
        """

    @property
    def has_groups(self) -> bool:
        """Whether the rows of queries have groups."""
        return False

    def properties(self) -> dict[str, Any]:
        """Further values for dataset.json; none by default."""
        return {}

    def label_columns(self) -> pa.Table | None:
        """Columns of the label table besides uid and text, by row; None in layouts that have none."""
        return None

    def images(self, name: str) -> RaggedImages | None:
        """Images of a split's queries, or of "labels", by row; None in layouts that have none."""
        return None

    def judgements(self, split: str) -> pa.Table | None:
        """What people say of pairs of a split, by uids, as in `xmc.data.judgements.JUDGED_SCHEMA`; None in layouts without."""
        return None

    def filter(self, split: str) -> Iterator[tuple[Path, int, int, int] | Defect]:
        """(file, line, query row, label row) of each pair that counts nowhere; none by default."""
        return iter(())

    def evidence_kinds(self, split: str) -> tuple[str, ...]:
        """The kinds of evidence about a split, see xmc.data.evidence.EVIDENCE; none by default."""
        return ()

    def evidence(self, kind: str, split: str, queries: int) -> EvidenceRows:
        """The evidence of one kind about a split, after `labels` and the split's `queries` have been read.

        kind: of `evidence_kinds`. queries: number of the split's. Raises DataError for another kind, and for a file that
        cannot be read.
        """
        raise DataError(
            f"Data sets in the layout {self.format} have no {kind} of a split; {split!r} was asked for them."
        )


class WrappedSource(RowSource):
    """What is made from another source, and is like it but for what a subclass says."""

    def __init__(self, source: RowSource) -> None:
        """Around a source."""
        self.source, self.name, self.splits = source, source.name, source.splits
        vars(self).update(format=source.format, has_uids=source.has_uids, filter_unit=source.filter_unit)

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Never: it is made from another source."""
        return False

    @property
    def has_groups(self) -> bool:
        """See RowSource."""
        return self.source.has_groups

    def properties(self) -> dict[str, Any]:
        """See RowSource."""
        return self.source.properties()

    def label_columns(self) -> pa.Table | None:
        """See RowSource."""
        return self.source.label_columns()

    def images(self, name: str) -> RaggedImages | None:
        """See RowSource."""
        return self.source.images(name)

    def judgements(self, split: str) -> pa.Table | None:
        """See RowSource."""
        return self.source.judgements(split)

    def filter(self, split: str) -> Iterator[tuple[Path, int, int, int] | Defect]:
        """See RowSource."""
        return self.source.filter(split)

    def evidence_kinds(self, split: str) -> tuple[str, ...]:
        """See RowSource."""
        return self.source.evidence_kinds(split)
