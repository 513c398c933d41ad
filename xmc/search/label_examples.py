"""Examples of labels: for each label the queries that it belongs to, as they are given, checked and embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xmc.arrays import Embeddings, Mask
from xmc.data.sequences import in_order
from xmc.encoders.dual import DualEncoder, unit_rows
from xmc.errors import InputError
from xmc.indexes.checks import require_matrix
from xmc.search.label_vectors import ExampleSums
from xmc.search.queries import Encode, Query, embed, query_list, strings_of_list

__all__ = ["Examples", "LabelExamples", "LabelSources"]

Examples: TypeAlias = Sequence[Sequence[str | Query] | npt.NDArray[Any] | None]
"""For each label a list of query texts or Query objects, or query embeddings [n, D]; an empty list or None for no examples."""


class LabelExamples:
    """The examples of m labels, in the order of the labels.

    counts: int64 [m], number of examples of each.
    """

    def __init__(self, given: Examples | None, uids: Sequence[str], dimension: int, name: str = "examples") -> None:
        """given: None for no examples of any label. dimension: of embeddings. name: of the argument.

        Raises InputError, with the label's uid, for what is no list for each label, a bare string, an example that is no
        query, an empty text, and embeddings of another dimension, NaN or infinite.
        """
        lists = [None] * len(uids) if given is None else in_order(given, f"{name} must be a list for each label")
        if len(lists) != len(uids):
            raise InputError(f"{name} has {len(lists)} lists for {len(uids)} labels.")
        self._lists = [_examples_of(values, uid, dimension, name) for values, uid in zip(lists, uids, strict=True)]
        self.counts = np.array([len(values) for values in self._lists], np.int64)

    def sums(self, model: DualEncoder, vectors: Encode) -> ExampleSums:
        """The sums of the embeddings, of unit length each where the model's are; texts of all labels are embedded at once.

        vectors: of labels by uid, for Query objects of labels.
        """
        queries = [query for values in self._lists if isinstance(values, list) for query in values]
        embedded = embed(queries, model.embed_queries, vectors, model.dimension)
        parts, start = [embedded[:0]], 0
        for values in self._lists:
            if isinstance(values, list):
                parts.append(embedded[start : start + len(values)])
                start += len(values)
            else:
                parts.append(values)
        embeddings = np.concatenate(parts)
        return ExampleSums.from_ragged(unit_rows(embeddings) if model.normalize else embeddings, self.counts)


@dataclass(frozen=True)
class LabelSources:
    """What m labels are made from.

    texts: "" for none. with_text: bool [m], whose texts, or images, count. negatives: None where no label has such.
    """

    uids: list[str]
    texts: list[str]
    with_text: Mask
    examples: LabelExamples
    negatives: LabelExamples | None

    @classmethod
    def read(
        cls,
        texts: Sequence[str | None] | None,
        uids: Sequence[str] | None,
        examples: Examples | None,
        negatives: Examples | None,
        dimension: int,
        with_images: bool = False,
    ) -> LabelSources:
        """What was given for labels, see `Retriever.add_labels`. with_images: labels have images, which stand for a text.

        Raises InputError as `LabelExamples`, for labels without texts and uids, and for one with neither text nor examples.
        """
        if texts is None and (uids is None or examples is None):
            raise InputError(
                "texts must be a list of label texts, or None for labels with uids=[...] and examples=[...]."
            )
        named = None if uids is None else strings_of_list(uids, "uids", "uid")
        listed = _texts(texts, named, examples is not None)
        named = listed if named is None else named
        if len(named) != len(listed):
            raise InputError(f"{len(named)} uids were given for {len(listed)} label texts.")
        positives = LabelExamples(examples, named, dimension)
        against = None if negatives is None else LabelExamples(negatives, named, dimension, "negatives")
        if examples is None or with_images:
            return cls(named, listed, np.ones(len(named), bool), positives, against)
        with_text = np.array([bool(text.strip()) for text in listed], bool)
        nothing = np.flatnonzero(~with_text & (positives.counts == 0))
        if len(nothing):
            raise InputError(f"The label {named[nothing[0]]!r} has neither a text nor an example; give it one of them.")
        return cls(named, listed, with_text, positives, against)


def _texts(texts: Sequence[str | None] | None, uids: list[str] | None, optional: bool) -> list[str]:
    """Texts of labels, "" for none; InputError for None where texts are not `optional`, or are the uids too."""
    if texts is None:
        return [""] * len(uids or ())
    if not optional or isinstance(texts, str):
        return strings_of_list(texts)  # type: ignore[arg-type]
    listed = in_order(texts, "texts must be a list of label texts, in an order")
    if uids is None and None in listed:
        raise InputError(f"The label at {listed.index(None)} has neither a text nor a uid; give uids.")
    return strings_of_list(["" if text is None else text for text in listed])


def _examples_of(values: Any, uid: str, dimension: int, name: str) -> list[str | Query] | Embeddings:
    """The examples of one label: texts and Query objects, or embeddings [n, dimension]."""
    what = f"{name} of the label {uid!r}"
    if values is None:
        return []
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OUST":
        return require_matrix(values, dimension, what)
    listed = in_order(values, f"The {what} must be a list of queries, or embeddings [n, {dimension}]")
    if listed and not any(isinstance(value, (str, Query)) for value in listed) and np.ndim(listed[0]) == 1:
        return require_matrix(listed, dimension, what)
    try:
        return query_list(listed)
    except InputError as error:
        raise InputError(f"The {what} cannot be used: {error}") from error
