"""Batches of long texts, answered some at a time, so that the vectors of their passages take a bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xmc.arrays import Rows
from xmc.search.answers import Answer
from xmc.search.queries import Query, query_list
from xmc.search.state import SearchRequest

__all__ = ["answer_some_at_a_time"]

CHARACTERS = 4 << 20
"""Number of characters of the texts that are answered together, a longer one alone."""


def answer_some_at_a_time(
    answer: Callable[[SearchRequest, Any], Answer], request: SearchRequest, queries: Any
) -> Answer:
    """What `answer` says of all queries, asked of some of them after another. Raises InputError as `query_list`."""
    listed = query_list(queries, request.allow_empty)
    answers = [answer(request.of_rows(rows, len(listed)), [listed[row] for row in rows]) for rows in _slices(listed)]
    if len(answers) < 2:
        return answers[0] if answers else answer(request, listed)
    explanations = [one.explanation for one in answers]
    said = None if explanations[0] is None else np.concatenate([one for one in explanations if one is not None])
    ids, scores = (np.concatenate([getattr(one, name) for one in answers]) for name in ("ids", "scores"))
    return replace(answers[0], ids=ids, scores=scores, explanation=said)


def _slices(queries: Sequence[str | Query]) -> Iterator[Rows]:
    """The rows of neighbours that have about `CHARACTERS` together."""
    lengths = [len(query) if isinstance(query, str) else sum(map(len, query.every_text())) for query in queries]
    ends = np.cumsum(lengths)
    first = 0
    while first < len(queries):
        before = ends[first] - lengths[first]
        last = max(first + 1, int(np.searchsorted(ends, before + CHARACTERS, side="right")))
        yield np.arange(first, last)
        first = last
