"""Options on the columns of a source, on how its text files are written, and on evidence beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xmc.cli.data.options import (
    BagsFile,
    Delimiter,
    Encoding,
    Labelled,
    LabelPrefix,
    Labels,
    LabelText,
    LabelUid,
    Language,
    MaxLine,
    Rejected,
    Relevance,
    Separator,
    SetsFile,
    Text,
    Uid,
    VotesFile,
)

if TYPE_CHECKING:
    from xmc.data.files import TextForm
    from xmc.data.readers import TabularColumns
    from xmc.data.sources import RowSource

__all__ = ["EvidenceOptions", "SourceColumns"]


@dataclass(frozen=True)
class EvidenceOptions:
    """A group of options, see xmc.cli.groups."""

    votes: VotesFile = None
    sets: SetsFile = None
    bags: BagsFile = None

    def beside(self, source: RowSource, form: TextForm) -> RowSource:
        """The source with the files of evidence that are given. form: of text files."""
        from xmc.data.named.evidence_files import EvidencedSource

        files = {kind: file for kind, file in vars(self).items() if file is not None}
        return EvidencedSource(source, files, form) if files else source


@dataclass(frozen=True)
class SourceColumns:
    """A group of options, see xmc.cli.groups."""

    uid_column: Uid = None
    text_column: Text = "text"
    labels_column: Labels = "labels"
    relevance_column: Relevance = None
    rejected_column: Rejected = None
    labelled_column: Labelled = None
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
            labelled=self.labelled_column,
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
