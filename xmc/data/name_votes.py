"""Votes for labels whose name stands in the text of a query: a source that needs no model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmc.arrays import Rows
from xmc.data.dataset import Dataset
from xmc.data.evidence import Votes
from xmc.progress import tracked

__all__ = ["LabelNames", "name_votes"]

WORD = re.compile(r"\w+")
END_OF_NAME = re.compile(r"[(\[:\n\t|]")
"""Before the first of these stands the name of a label; an explanation follows."""
COMMON = 0.01
"""A name that stands in a greater share of the texts is a common word, and counts less."""
TEXTS_AT_ONCE = 4096


@dataclass(frozen=True)
class LabelNames:
    """The names of L labels, as words without case; a label may have several, and a name several labels.

    numbers: of each name, its words joined by blanks. labels: of each name, int64. lengths: by the first word of names, the
    numbers of words that these have, longest first.
    """

    numbers: dict[str, int]
    labels: Sequence[Rows]
    lengths: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, texts: Sequence[str], separator: str | None = None) -> LabelNames:
        """From the labels' texts: what stands before a bracket, a colon or a line's end, else all of it.

        separator: what stands between several names of a label in its text, such as a comma; None where it has one.

        >>> names = LabelNames.of(["Mercury (planet)", "Mercury (element)", "hot dog, frankfurter"], ",")
        >>> sorted(names.numbers), [labels.tolist() for labels in names.labels]
        (['frankfurter', 'hot dog', 'mercury'], [[0, 1], [2], [2]])
        """
        found: dict[str, list[int]] = {}
        lengths: dict[str, set[int]] = {}
        for label, text in enumerate(texts):
            for name in _names(text, separator):
                found.setdefault(" ".join(name), []).append(label)
                lengths.setdefault(name[0], set()).add(len(name))
        longest_first = {word: tuple(sorted(some, reverse=True)) for word, some in lengths.items()}
        labels = [np.array(some, np.int64) for some in found.values()]
        return cls({name: number for number, name in enumerate(found)}, labels, longest_first)

    def inside(self, text: str) -> list[int]:
        """The names that stand in a text as whole words, from left to right the longest at each place, each once.

        >>> names = LabelNames.of(["hot", "hot dog", "dog"])
        >>> [list(names.numbers)[name] for name in names.inside("A hot dog and a dog.")]
        ['hot dog', 'dog']
        """
        words, place = WORD.findall(text.casefold()), 0
        found: dict[int, None] = {}
        while place < len(words):
            for length in self.lengths.get(words[place], ()):
                name = self.numbers.get(" ".join(words[place : place + length]))
                if name is not None and place + length <= len(words):
                    found[name] = None
                    place += length - 1
                    break
            place += 1
        return list(found)


def name_votes(dataset: Dataset, source: str = "names", separator: str | None = None) -> Votes:
    """A vote for each label whose name stands in the text of a training query.

    Its value is 1, divided by the number of labels of that name; for a name that stands in a share d > COMMON of the texts
    log(1/d) / log(1/COMMON) of that. separator: as of `LabelNames.of`. The time is that of looking up each word of each text,
    however many labels there are. Raises DataError for a data set without a split train.
    """
    texts = dataset.split("train").texts
    names = LabelNames.of([text or "" for text in dataset.labels.texts.to_pylist()], separator)
    chunks = (texts.slice(start, TEXTS_AT_ONCE) for start in range(0, len(texts), TEXTS_AT_ONCE))
    inside = [
        np.array(names.inside(text or ""), np.int64)
        for some in tracked(chunks, "looking for names", len(texts), unit="queries", size=len)
        for text in some.to_pylist()
    ]
    queries = np.repeat(np.arange(len(texts)), [len(some) for some in inside])
    found = np.concatenate([np.zeros(0, np.int64), *inside])
    values = _values(np.bincount(found, minlength=len(names.labels)), len(texts), names.labels)
    sizes = np.array([len(names.labels[name]) for name in found.tolist()], np.int64)
    labels = np.concatenate([np.zeros(0, np.int64), *(names.labels[name] for name in found.tolist())])
    return _greatest(np.repeat(queries, sizes), labels, np.repeat(values[found], sizes), source)


def _names(text: str, separator: str | None) -> Iterator[tuple[str, ...]]:
    """The names of a label, each once, as words."""
    title = END_OF_NAME.split(text.strip(), maxsplit=1)[0] if text else ""
    parts = (title or text).split(separator) if separator else [title or text]
    for words in dict.fromkeys(tuple(WORD.findall(part.casefold())) for part in parts):
        if words:
            yield words


def _values(counts: Rows, texts: int, labels: Sequence[Rows]) -> npt.NDArray[np.float64]:
    """What a vote by each name is worth. counts: number of texts that each stands in."""
    rarity = np.log(max(texts, 1) / np.maximum(counts, 1)) / np.log(1 / COMMON)
    usual = np.where(counts <= max(COMMON * texts, 1), 1.0, np.minimum(rarity, 1.0))
    values: npt.NDArray[np.float64] = usual / np.array([len(some) for some in labels], np.float64)
    return values


def _greatest(queries: Rows, labels: Rows, values: npt.NDArray[np.float64], source: str) -> Votes:
    """Votes above 0; of several for a pair, by several names of a label, the greatest."""
    order = np.lexsort((-values, labels, queries))
    order = order[values[order] > 0]
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(queries[order]) != 0) | (np.diff(labels[order]) != 0)
    order = order[first]
    sources = np.zeros(len(order), np.int32)
    return Votes(queries[order], labels[order], sources, (source,), values[order].astype(np.float32))
