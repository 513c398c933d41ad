"""Votes for labels whose names stand in texts."""

from __future__ import annotations

import time

import numpy as np
import pytest

from xmc.data.dataset import Dataset
from xmc.data.evidence import Votes
from xmc.data.name_votes import LabelNames, name_votes
from xmc.errors import InputError

LABELS = [
    "Mercury (planet)",
    "Mercury (element)",
    "Hot dog",
    "dog",
    "Seal: an animal",
    "grey seal, harbour seal",
    "(odd)",
]


def votes_of(*texts: str, separator: str | None = None, repeated: int = 300) -> list[dict[int, float]]:
    """The votes for each text, which stands among others, so that no name is common."""
    others = [f"something else {number}" for number in range(repeated)]
    every = [*texts, *others]
    data = Dataset.from_lists("names", LABELS, {"train": (every, [[0]] * len(every))})
    votes = name_votes(data, "rule", separator)
    assert votes.names == ("rule",)
    assert (np.diff(votes.queries * 100 + votes.labels) > 0).all()
    found: list[dict[int, float]] = [{} for _ in texts]
    for query, label, value in zip(votes.queries, votes.labels, votes.values, strict=True):
        found[query][int(label)] = pytest.approx(float(value))
    return found


def test_whole_words_the_longest_name_and_shared_names() -> None:
    found = votes_of(
        "A HOT dog!", "hot, dogs and a hot-dog", "mercury is near", "the seal", "sealed", "grey seal", "hot"
    )
    assert found == [{2: 1}, {2: 1}, {0: 0.5, 1: 0.5}, {4: 1}, {}, {4: 1}, {}]


def test_a_label_may_have_several_names() -> None:
    assert votes_of("a grey seal", "the harbour seal and a seal", "odd", separator=",") == [
        {5: 1},
        {4: 1, 5: 1},
        {6: 1},
    ]


def test_common_names_count_less() -> None:
    found = votes_of("a dog", "my dog", "no dog", "hot dog", repeated=26)
    assert found[0] == {3: np.log(10) / np.log(100)}
    assert found[3] == {2: 1}
    assert votes_of("dog", "a dog", repeated=0) == [{}, {}]  # which says nothing where all texts have it


def test_many_labels_and_texts_take_seconds() -> None:
    """The labels of one first word have a lookup for each number of words together, not one each."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(5_000)])
    labels = [" ".join(words[rng.integers(0, 5_000, 1 + number % 4)]) for number in range(10_000)]
    names = LabelNames.of(labels)
    texts = [" ".join(words[rng.integers(0, 5_000, 200)]) for _ in range(200)]
    start = time.process_time()
    found = [names.inside(text) for text in texts]
    assert time.process_time() - start < 2
    assert sum(map(len, found)) > 100


def test_votes_of_other_sources_are_joined() -> None:
    first = Votes.from_arrays([0, 1], [1, 0], ["b", "b"], [1.0, 0.5])
    second = Votes.from_arrays([0, 0], [0, 1], ["a", "a"], [-1.0, 0.25])
    both = first.joined(second)
    assert both.names == ("a", "b")
    assert both.queries.tolist() == [0, 0, 0, 1]
    assert both.values.tolist() == [-1.0, 0.25, 1.0, 0.5]
    assert first.joined(None) is first
    with pytest.raises(InputError, match="votes of a source 'b' already"):
        first.joined(both)
