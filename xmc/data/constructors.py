"""What a data set is built from in memory: lists, tables of other libraries, data sets of Hugging Face."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from typing_extensions import Self

from xmc.arrays import Mask
from xmc.data.evidence import CandidateSets, LabelBags, Votes, evidence_tables
from xmc.data.from_arrow import tables_from_arrow
from xmc.data.huggingface import LabelTexts, read_huggingface
from xmc.data.images.ragged import RaggedImages
from xmc.data.judgements import judged_table
from xmc.data.lists import Lists, filter_of_pairs, label_table, query_table, require_splits
from xmc.data.sources import TabularColumns
from xmc.data.tables import LABEL_SCHEMA, QUERY_SCHEMA, with_columns

__all__ = ["DatasetConstructors"]


class DatasetConstructors(ABC):
    """The constructors of xmc.data.dataset.Dataset that take what is in memory."""

    @classmethod
    def from_lists(
        cls,
        name: str,
        label_texts: Sequence[str],
        splits: Mapping[str, tuple[Sequence[str], Lists]],
        *,
        label_uids: Sequence[str] | None = None,
        query_uids: Mapping[str, Sequence[str]] | None = None,
        rejected: Mapping[str, Lists] | None = None,
        filters: Mapping[str, npt.NDArray[np.integer]] | None = None,
        judged: Mapping[str, Iterable[tuple[str, str, str]]] | None = None,
        votes: Mapping[str, Votes] | None = None,
        candidate_sets: Mapping[str, CandidateSets] | None = None,
        label_bags: Mapping[str, LabelBags] | None = None,
        labelled: Mapping[str, Sequence[bool] | Mask] | None = None,
        propensity: tuple[float, float] = (0.55, 1.5),
        images: Mapping[str, RaggedImages] | None = None,
    ) -> Self:
        """Build from lists: for each split the query texts and, for each query, the rows of its labels.

        Uids are row numbers unless given. rejected: by split, for each query the rows of the labels that were judged
        not relevant. filters: by split, pairs (query row, label row) int [m, 2] that count nowhere. judged: by split,
        (query uid, label uid, judgement), see `judgements`. votes, candidate_sets, label_bags: by split, see
        xmc.data.evidence. labelled: by split, for each query whether anything is known of its labels. images: by split, and
        of "labels".

        Raises InputError for lengths and types that do not match, and a uid given twice, DataError for label rows out of
        range, for a label that is positive and rejected, for labels of a query that is not labelled, and as `judgements` and
        `votes`.
        """
        evidence = {"votes": votes, "candidate_sets": candidate_sets, "label_bags": label_bags}
        given = {"rejected": rejected, "filters": filters, "judged": judged, "labelled": labelled}
        require_splits(splits, query_uids=query_uids, **given, **evidence)
        tables = {"labels": label_table(label_texts, label_uids)}
        for split, (texts, lists) in splits.items():
            uids = (query_uids or {}).get(split)
            known = ((rejected or {}).get(split), uids, (labelled or {}).get(split))
            tables[f"queries-{split}"] = query_table(split, texts, lists, *known)
        for split, pairs in (filters or {}).items():
            tables[f"filter-{split}"] = filter_of_pairs(split, pairs)
        for split, judgements in (judged or {}).items():
            tables[f"judged-{split}"] = judged_table(judgements)
        for argument, by_split in evidence.items():
            tables |= evidence_tables(argument, by_split or {})
        return cls._from_tables(name, tables, list(splits), propensity, images)

    @classmethod
    def from_huggingface(
        cls,
        dataset: Any,
        text: str = "text",
        labels: str = "labels",
        *,
        uid: str | None = None,
        rejected: str | None = None,
        label_texts: LabelTexts | None = None,
        name: str = "huggingface",
        propensity: tuple[float, float] = (0.55, 1.5),
    ) -> Self:
        """Build from a datasets.Dataset, which becomes the split "train", or from a DatasetDict with all its splits.

        text, labels, uid: names of columns; without `uid`, a query's is its row number. labels: one label or a list for
        each row: ClassLabel, strings or ints; rejected likewise: the labels that were judged not relevant. A null, and a
        ClassLabel of -1, is no label. label_texts: texts by label (of a ClassLabel by name), or a list in the order of label
            numbers. Without it, a label's text is its uid, and labels other than ClassLabel are those that occur, sorted.
        Raises DataError for columns that are not there or of another type, and labels that label_texts does not have,
        InputError for a streamed data set, DependencyError without the package datasets.
        """
        labels_read, queries = read_huggingface(dataset, text, labels, uid, label_texts, rejected)
        tables = {"labels": labels_read.cast(LABEL_SCHEMA)}
        for split, table in queries.items():
            tables[f"queries-{split}"] = with_columns(table, QUERY_SCHEMA)
        return cls._from_tables(name, tables, list(queries), propensity)

    @classmethod
    def from_arrow(
        cls,
        tables: Any,
        text: str = "text",
        labels: str = "labels",
        *,
        separator: str | None = None,
        uid: str | None = None,
        relevance: str | None = None,
        rejected: str | None = None,
        label_table: Any = None,
        label_uid: str = "uid",
        label_text: str = "text",
        group: str | None = None,
        labelled: str | None = None,
        name: str = "arrow",
        on_bad_row: str = "error",
        propensity: tuple[float, float] = (0.55, 1.5),
    ) -> Self:
        """Build from a table, which becomes the split "train", or from a mapping of tables by split; by the rules of files.

        tables: of pandas (from 2.2 on), Polars, DuckDB, pyarrow or Hugging Face, see xmc.data.arrow_objects.table_of. text,
        labels, uid, relevance, rejected, group, labelled: columns, see TabularColumns. Labels are uids: lists, or strings that
        `separator` cuts. label_table: all labels, by the columns label_uid and label_text; without it, those that occur,
        sorted, with their uids as texts. on_bad_row: "error", or "drop" to leave bad rows out, which are counted by reason in
        the log and in `properties["left_out"]`.

        Raises InputError for what is no table, DataError for columns that are not there or of another type, and for the first
        bad row, by its table and row.
        """
        names = uid, text, labels, relevance, rejected, separator, label_uid, label_text
        columns = TabularColumns(*names, group=group, labelled=labelled)
        made, properties = tables_from_arrow(tables, label_table, columns, on_bad_row)
        splits = [stem.removeprefix("queries-") for stem in made if stem != "labels"]
        return cls._from_tables(name, made, splits, propensity, further=properties)

    @classmethod
    @abstractmethod
    def _from_tables(
        cls,
        name: str,
        tables: Mapping[str, pa.Table],
        splits: Sequence[str],
        propensity: tuple[float, float],
        images: Mapping[str, RaggedImages] | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> Self:
        """From tables by file stem, checked. further: properties beside those that the tables say."""
