"""Several embeddings a label, weighted at each search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xmc.errors import InputError
from xmc.indexes.factory import build_index
from xmc.indexes.fields import Fields

SIZES = {"title": 12, "image": 5, "shape": 3}


def parts(count: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=(count, size)).astype(np.float32) for name, size in SIZES.items()}


@pytest.mark.parametrize("weights", [{}, {"title": 0.7, "image": 0.3}, {"image": 2.0, "shape": -0.5}])
@pytest.mark.parametrize("asked", [("title", "image", "shape"), ("image",), ("shape", "title")])
def test_one_search_gives_the_weighted_sum_of_scores(weights: dict[str, float], asked: tuple[str, ...]) -> None:
    fields, labels, queries = Fields(SIZES), parts(300, 0), parts(20, 1)
    index = build_index("exact", fields.dimension)
    index.build(fields.labels(labels), np.arange(300))
    own = {name: weight for name, weight in weights.items() if name in SIZES}
    ids, scores = index.search(fields.queries({name: queries[name] for name in asked}, own), 7)
    expected = sum(own.get(name, 1.0) * (queries[name].astype(float) @ labels[name].T) for name in asked)
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :7], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, ids, 1), scores, rtol=1e-4, atol=1e-5)


def test_fields_that_do_not_fit_are_named() -> None:
    fields = Fields(SIZES)
    with pytest.raises(InputError, match="no field 'colour', only title, image, shape"):
        fields.queries({"colour": [[1.0]]})
    with pytest.raises(InputError, match="no field 'colour'"):
        fields.queries(parts(2, 0), {"colour": 1.0})
    with pytest.raises(InputError, match=r"embeddings of image must have the shape \(n, 5\)"):
        fields.queries({"image": np.zeros((2, 4))})
    with pytest.raises(InputError, match="as many rows, but have title 2, image 3"):
        fields.queries({"title": np.zeros((2, 12)), "image": np.zeros((3, 5))})
    with pytest.raises(InputError, match="field 'shape' are missing"):
        fields.labels({"title": np.zeros((2, 12)), "image": np.zeros((2, 5))})
    with pytest.raises(InputError, match="weight of the field 'title' must be finite"):
        fields.queries(parts(2, 0), {"title": float("nan")})
    with pytest.raises(InputError, match="needs one of the fields"):
        fields.queries({})
    with pytest.raises(InputError, match="dimensions of at least 1"):
        Fields({"title": 0})
