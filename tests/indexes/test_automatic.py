"""The index that nobody named: exact, or a scan of codes that finds as much on queries it was not chosen by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmc.errors import InputError
from xmc.indexes.designs import EXACT_BELOW, TUNED_FROM
from xmc.indexes.factory import index_version, load_index
from xmc.indexes.label_index import LabelIndex
from xmc.indexes.scan import exact_search
from xmc.indexes.versions import IndexVersion


def unit(count: int, dimension: int, seed: int) -> Any:
    """The hardest directions: none is nearer to another than chance makes it."""
    values = np.random.default_rng(seed).standard_normal((count, dimension), np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def recall(held: IndexVersion, queries: Any) -> float:
    scores, _ = held.search(queries, 10)
    truth, _ = exact_search(queries, held.blocks, 10)
    return float((scores >= truth[:, 9:] - 1e-5).mean())


@pytest.mark.parametrize(("dimension", "design"), [(48, "PQ48x4fs"), (192, "PQ96x4fs")])
def test_a_scan_of_codes_finds_what_it_promises(dimension: int, design: str, tmp_path: Path) -> None:
    labels = unit(EXACT_BELOW, dimension, 0)
    held = index_version("auto", labels, unit(400, dimension, 1))
    assert held.design.name == design
    assert held.rescore in (4, 8, 16, 32)
    assert held.measured["goal"]["recall"] == 0.99
    others = unit(400, dimension, 2)
    assert recall(held, others) >= 0.987  # 0.99 by more than its standard error on the queries, four of these on others
    few = np.zeros(len(labels), bool)
    few[::400] = True
    np.testing.assert_array_equal(held.search(others, 5, allowed=few)[1], exact_search(others, held.blocks, 5, few)[1])
    many = np.ones(len(labels), bool)
    many[::4] = False
    assert many[held.search(others, 10, allowed=many)[1]].all()
    index = LabelIndex.from_version(held, np.arange(len(labels)))
    index.save(tmp_path / "index")
    loaded = load_index(tmp_path / "index")
    np.testing.assert_array_equal(loaded.search(others, 10)[0], held.search(others, 10)[1])
    loaded.add(others, np.arange(len(others)) + len(labels))
    assert (loaded.search(others, 1)[0].ravel() >= len(labels)).all()


def test_exact_where_codes_do_not_find_enough_or_nothing_says_so() -> None:
    labels = unit(EXACT_BELOW, 16, 0)
    queries = unit(200, 16, 1)
    beside = np.array([10_000.0] + 15 * [0.0], np.float32)  # one number outweighs what tells labels apart
    assert index_version("auto", labels + beside, queries).design.name == "exact"
    assert index_version("auto", labels, queries[:0]).design.name == "exact"
    assert index_version("auto", labels[:-1], queries).design.name == "exact"
    assert index_version("auto", unit(EXACT_BELOW, 131, 0), unit(10, 131, 1)).design.name == "exact"
    assert EXACT_BELOW < TUNED_FROM
    with pytest.raises(InputError, match=r"queries must have the shape \(n, 16\)"):
        index_version("auto", labels, unit(10, 8, 1))
