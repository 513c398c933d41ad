"""What a search can be asked beside its queries and the number of labels, by name, for every call that searches."""

from __future__ import annotations

from typing_extensions import TypedDict

from xmc.search.filters import Condition, Uids
from xmc.search.passages import PassageOptions

__all__ = ["SearchOptions", "asked_for"]


_OFF = ("diversity", "allow_empty")
"""Options that ask for nothing with the value 0, or False."""


class SearchOptions(TypedDict, total=False):
    """The keywords of `Retriever.predict`, `search`, `answer` and `similar_labels`; each may be left out.

    include, exclude: labels that alone, or never, may be returned: uids (a list, set or array), a mask bool [labels] in the
        order of `labels`, or a list with one of these for each query. Uids that are not there are ignored.
    where: a condition over the columns of `labels`, such as `market == "de" and price < 10` (see xmc.search.predicates), or an
        expression of pyarrow.compute. Labels must satisfy it and be included and not excluded.
    rescore, diversity: see xmc.indexes.label_index.LabelIndex.search.
    passages: cut each text into passages, search each of them, and combine their scores; see xmc.search.passages. Not for
        embeddings, texts with images, and with diversity.
    rerank: False leaves the run's re-ranker out, True refuses a run that has none; None, the default, uses what the run has.
    allow_empty: answer texts that are empty or white space too, which are refused otherwise, as jobs over files do.
    """

    include: Uids | None
    exclude: Uids | None
    where: Condition | None
    rescore: int | None
    diversity: float
    passages: PassageOptions | None
    rerank: bool | None
    allow_empty: bool


def asked_for(options: SearchOptions) -> list[str]:
    """The names of the options that ask for something: for another value than that of an option which is left out."""
    return [name for name, value in options.items() if value is not None and not (name in _OFF and value == 0)]
