"""Queries of several parts: texts, labels and embeddings with weights, passages, and what another query takes away."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from xmc.arrays import Embeddings
from xmc.data.arrow_objects import ArrowArray, ArrowStream
from xmc.data.images.ragged import Images, RaggedImages
from xmc.data.sequences import in_order, is_utf8, require_query_text
from xmc.encoders.base import Encoder
from xmc.errors import InputError
from xmc.search.passages import MOST_PASSAGES, Combine, PassageOptions, cut, require_combination

__all__ = ["Encode", "Queries", "Query", "embed", "images_of_texts", "query_list", "strings_of_list"]

Encode = Callable[[list[str]], Embeddings]


@dataclass(frozen=True, eq=False)
class Query:
    """A weighted sum of texts, labels and embeddings: a label's score is the weighted sum of its scores with the parts.

    The score is an inner product, so Σ_p w_p (q_p · z) = (Σ_p w_p q_p) · z: one search answers, over all labels. A negative
    weight makes a negative example. Nothing is normalised: weights that sum to one keep the scale of the scores.

    texts: weights by text; a plain list has equal weights that sum to one.
    labels: likewise by uid: "more like these".
    embeddings: pairs of a vector [D] and its weight.
    passages: the passages of a long text, in place of the parts above. Each is searched by itself, and a label's scores with
        all of them are combined: "logmeanexp", between their mean and the largest, at this temperature; "max", or "sum".
    subtracted: what `minus` was given.

    Fields that are fused with weights chosen at each query: Bernabeu, Gallego & Pertusa, "Multi-label logo recognition and
    retrieval based on weighted fusion of neural features" (2022); negative examples: Rocchio, "Relevance feedback in
    information retrieval" (1971).

    Raises InputError for a query without any part, weights that are not finite, or one bare string; for passages beside other
    parts, more of them than xmc.search.passages.MOST_PASSAGES, and an unknown way to combine them.

    >>> Query(texts={"a boat": 1.0, "with an engine": -0.5}, labels=["n02858304+v01944710"]).labels
    {'n02858304+v01944710': 1.0}
    """

    texts: Mapping[str, float] | Sequence[str] = ()
    labels: Mapping[str, float] | Sequence[str] = ()
    embeddings: Sequence[tuple[npt.ArrayLike, float]] = ()
    passages: Sequence[str] = ()
    combine: Combine = "logmeanexp"
    temperature: float = 0.1
    subtracted: tuple[Query, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", _weights(self.texts, "texts"))
        object.__setattr__(self, "labels", _weights(self.labels, "labels"))
        object.__setattr__(self, "embeddings", _vectors(self.embeddings))
        object.__setattr__(self, "passages", _passages(self.passages))
        object.__setattr__(self, "temperature", require_combination(self.combine, self.temperature))
        parts = bool(self.texts or self.labels or self.embeddings)
        if not (parts or self.passages):
            raise InputError("A Query needs at least one text, label or embedding, or passages.")
        if parts and self.passages:
            raise InputError(
                "A Query of passages has no texts, labels and embeddings beside them; put texts among the passages."
            )

    @classmethod
    def of_text(cls, text: str, options: PassageOptions, encoder: Encoder) -> Query:
        """Of the passages that a text is cut into, see xmc.search.passages.cut."""
        return cls(passages=cut(text, options, encoder), combine=options.combine, temperature=options.temperature)

    @property
    def is_composed(self) -> bool:
        """Whether several searches answer it, and not that of one vector."""
        return bool(self.passages or self.subtracted)

    def minus(self, other: Query | str) -> Query:
        """What is like this query and unlike another: each label's score falls by how likely it is a label of the other.

        The score of a label l is p_a(l) (1 - p_b(l)), between 0 and 1, where p(l) is the logistic function of the label's score
        at the model's temperature, and 1/2 for the label at the rank xmc.search.composed.LIKELY.

        other: a query, or a text. Raises InputError for anything else, and for one that something is subtracted from.

        >>> Query(["a boat"]).minus("a boat with an engine").subtracted[0].texts
        {'a boat with an engine': 1.0}
        """
        other = Query([other]) if isinstance(other, str) else other
        if not isinstance(other, Query):
            raise InputError(
                f"A Query or a text can be subtracted, but {other!r:.100} is of type {type(other).__name__}."
            )
        if other.subtracted:
            raise InputError(
                "A query that something is subtracted from cannot be subtracted itself; subtract its parts."
            )
        return replace(self, subtracted=(*self.subtracted, other))

    def alone(self) -> Query:
        """The query without what is subtracted from it."""
        return replace(self, subtracted=()) if self.subtracted else self

    def every_text(self) -> Iterator[str]:
        """All texts in it, those of passages and of subtracted queries too."""
        yield from (*self.texts, *self.passages)
        for query in self.subtracted:
            yield from query.every_text()


Queries: TypeAlias = Sequence[str | Query] | npt.NDArray[Any] | ArrowArray | ArrowStream
"""What a search is asked: texts, or Query objects, or embeddings float32 [n, D]. Texts are a list, an array of numpy, or a
column by Arrow's PyCapsule protocol: an array or a chunked array of pyarrow, a Series of pandas or Polars."""


def strings_of_list(values: Sequence[str], name: str = "texts", kind: str = "text") -> list[str]:
    """Texts or uids of labels as a list.

    name: of the argument. kind: of one value, in words. Raises InputError for one bare string, what has no order, and, with its
    place, for a value that is no string, or cannot be written as UTF-8.
    """
    if isinstance(values, str):
        raise InputError(f"{name} must be a list of label {kind}s; put a single {kind} into a list.")
    listed = in_order(values, f"{name} must be a list of label {kind}s, in an order")
    for place, value in enumerate(listed):
        if not isinstance(value, str):
            raise InputError(
                f"{name} must be strings, but at {place} is {value!r:.100}, of type {type(value).__name__}."
            )
        if not is_utf8(value):
            raise InputError(f"{name} must be UTF-8, but at {place} is {value!r:.100}. Correct it.")
    return listed


def query_list(queries: Any, allow_empty: bool = False) -> list[str | Query]:
    """Texts and Query objects as a list, checked.

    allow_empty: texts may be empty or white space, which are bad queries otherwise.

    Raises InputError for one bare string or Query, for what has no order (a set, a mapping) or cannot be gone over, and, with
    its place, for an element that is neither text nor Query, a text that is not UTF-8, and an empty one.
    """
    if isinstance(queries, (str, Query)):
        kind = "text" if isinstance(queries, str) else "Query"
        raise InputError(f"queries must be a list of texts; put a single {kind} into a list.")
    listed = in_order(queries, "queries must be a list of texts, in the order of the answers")
    for place, query in enumerate(listed):
        if not isinstance(query, (str, Query)):
            kind = type(query).__name__
            raise InputError(f"A query must be a text or a Query, but query {place} is {query!r:.100}, of type {kind}.")
        for text in (query,) if isinstance(query, str) else query.every_text():
            require_query_text(text, place, allow_empty)
    return listed


def embed(
    queries: Sequence[str | Query], encode: Encode, vectors: Encode, dimension: int, allow_empty: bool = False
) -> Embeddings:
    """One embedding a query [n, D]; all texts are encoded in one call.

    queries: none of them composed. encode: embeddings of texts; vectors: of labels, by uid. Raises InputError as `query_list`,
    and for embeddings of another dimension.
    """
    queries = query_list(queries, allow_empty)
    if all(isinstance(query, str) for query in queries):
        return encode(queries)  # type: ignore[arg-type]
    parts = [Query({query: 1.0}) if isinstance(query, str) else query for query in queries]
    total = _mixtures([query.texts for query in parts], encode, dimension)
    total += _mixtures([query.labels for query in parts], vectors, dimension)
    for row, query in enumerate(parts):
        for vector, weight in query.embeddings:
            shape = np.shape(vector)
            if shape != (dimension,):
                raise InputError(f"An embedding of a Query must have the shape ({dimension},), but has {shape}.")
            total[row] += np.float32(weight) * np.asarray(vector, np.float32)
    return total


def images_of_texts(images: Images | None, count: int, encoder: Encoder) -> RaggedImages | None:
    """The images of `count` texts; None for none. InputError where the encoder takes no images, or for another number."""
    if images is None:
        return None
    if not encoder.image_dimension:
        raise InputError("This model was trained without images; leave images out.")
    if not isinstance(images, RaggedImages):
        images = RaggedImages.from_arrays(list(images), encoder.image_dimension)
    if len(images) != count:
        raise InputError(
            f"There are images for {len(images)} texts, but {count} texts; give None for one without images."
        )
    return encoder.images_of(images)


def _mixtures(rows: list[Any], vectors: Encode, dimension: int) -> Embeddings:
    """Row i: Σ_key rows[i][key] · vector of key, float32 [n, D]; each key is looked up once."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    if not keys:
        return np.zeros((len(rows), dimension), np.float32)
    place = {key: number for number, key in enumerate(keys)}
    weights = np.array([weight for row in rows for weight in row.values()], np.float32)
    columns = np.array([place[key] for row in rows for key in row])
    starts = np.cumsum([0, *map(len, rows)])
    mixed: Embeddings = csr_matrix((weights, columns, starts), shape=(len(rows), len(keys))) @ vectors(keys)
    return mixed


def _weights(given: Any, kind: str) -> dict[str, float]:
    if isinstance(given, str):
        raise InputError(f"The {kind} of a Query must be a list, or weights by text; put a single one into a list.")
    given = _listed(given, kind, "a list, or weights by text")
    if isinstance(given, Mapping):
        weights = {key: _weight(weight, f"{kind[:-1]} {key!r}") for key, weight in given.items()}
    else:
        weights = {}
        for key in map(_string(kind), given):
            weights[key] = weights.get(key, 0.0) + 1 / len(given)
    return dict(zip(map(_string(kind), weights), weights.values(), strict=True))


def _string(kind: str) -> Callable[[Any], str]:
    """What raises InputError for anything but a string."""

    def checked(key: Any) -> str:
        if not isinstance(key, str):
            raise InputError(
                f"The {kind} of a Query must be strings, but {key!r:.100} is of type {type(key).__name__}."
            )
        return key

    return checked


def _listed(given: Any, kind: str, wanted: str) -> Any:
    """Values that have an order and a number. InputError for one value alone."""
    if all(hasattr(given, name) for name in ("__iter__", "__len__")) and not isinstance(given, (str, bytes)):
        return given
    raise InputError(f"The {kind} of a Query must be {wanted}, but are {given!r:.100}, of type {type(given).__name__}.")


def _passages(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        raise InputError("The passages of a Query must be a list of texts; PassageOptions cut a text into passages.")
    passages = tuple(map(_string("passages"), _listed(given, "passages", "a list of texts")))
    if len(passages) > MOST_PASSAGES:
        raise InputError(f"A Query may have {MOST_PASSAGES:,} passages, but has {len(passages):,}; let each be longer.")
    return passages


def _vectors(given: Any) -> tuple[tuple[Embeddings, float], ...]:
    pairs = []
    for pair in _listed(given, "embeddings", "a list of pairs (vector, weight)"):
        try:
            vector, weight = pair
            pairs.append((np.asarray(vector, np.float32), _weight(weight, "embedding")))
        except (TypeError, ValueError) as error:
            raise InputError(f"The embeddings of a Query must be pairs (vector, weight): {error}.") from error
    return tuple(pairs)


def _weight(given: Any, part: str) -> float:
    try:
        weight = float(given)
    except (TypeError, ValueError) as error:
        raise InputError(f"The weight of the {part} must be a number, but is {given!r}.") from error
    if not math.isfinite(weight) or abs(weight) > float(np.finfo(np.float32).max):
        raise InputError(f"The weight of the {part} must be finite, in 32 bits too, but is {weight}.")
    return weight
