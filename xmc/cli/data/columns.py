"""Options on the columns of a source, and on how its text files are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xmc.cli.data.options import (
    Delimiter,
    Encoding,
    LabelPrefix,
    Labels,
    LabelText,
    LabelUid,
    Language,
    MaxLine,
    Rejected,
    Relevance,
    Separator,
    Text,
    Uid,
)

if TYPE_CHECKING:
    from xmc.data.readers import TabularColumns

__all__ = ["SourceColumns"]


@dataclass(frozen=True)
class SourceColumns:
    """A group of options, see xmc.cli.groups."""

    uid_column: Uid = None
    text_column: Text = "text"
    labels_column: Labels = "labels"
    relevance_column: Relevance = None
    rejected_column: Rejected = None
    label_uid_column: LabelUid = "uid"
    label_text_column: LabelText = "text"
    separator: Separator = None
    encoding: Encoding = None
    delimiter: Delimiter = None
    max_line: MaxLine = None
    label_prefix: LabelPrefix = None
    language: Language = None

    def tabular(self, group: str | None = None) -> TabularColumns:
        """What a reader is told. group: the column by which queries stay together where the data set is split."""
        from xmc.data.readers import TabularColumns

        return TabularColumns(
            uid=self.uid_column,
            text=self.text_column,
            labels=self.labels_column,
            relevance=self.relevance_column,
            rejected=self.rejected_column,
            label_uid=self.label_uid_column,
            label_text=self.label_text_column,
            separator=self.separator,
            encoding=self.encoding,
            delimiter=self.delimiter,
            max_line=self.max_line,
            label_prefix=self.label_prefix,
            language=self.language,
            group=group,
        )
