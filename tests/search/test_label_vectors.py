"""Labels from outside of training: the closed form against dense formulas in float64, and the rate rule."""

from __future__ import annotations

import numpy as np
import pytest

from xmc.arrays import Embeddings
from xmc.indexes.factory import index_version
from xmc.search.entry_rate import EntryRate
from xmc.search.label_vectors import ExampleSums, second_moment, vectors_from_examples

DIMENSION = 24


def unit_vectors(rng: np.random.Generator, count: int) -> Embeddings:
    """Unit vectors around a common one, as embeddings are."""
    vectors = rng.normal(size=(count, DIMENSION)) * np.geomspace(1, 0.2, DIMENSION) + 0.3
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_vectors_are_the_least_squares_fit_of_their_examples() -> None:
    """The direction is that of ridge regression on the indicator of examples, and of discriminant analysis with a constant."""
    rng = np.random.default_rng(0)
    queries, examples = unit_vectors(rng, 300), unit_vectors(rng, 7)
    moment = second_moment(queries)
    exact = 0.7 * queries.astype(np.float64).T @ queries / 300
    exact += np.eye(DIMENSION) * 0.3 * np.einsum("nd,nd->", queries, queries, dtype=np.float64) / 300 / DIMENSION
    np.testing.assert_allclose(moment, exact, rtol=1e-5)
    sums = ExampleSums.from_ragged(examples, np.array([7]))
    vectors = vectors_from_examples(moment, sums, np.zeros((1, DIMENSION), np.float32), np.zeros(1, bool))
    wanted = np.linalg.inv(exact) @ examples.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(vectors[0], wanted / np.linalg.norm(wanted), atol=1e-5)

    mean = queries.astype(np.float64).mean(axis=0)
    discriminant = np.linalg.solve(exact - 0.7 * np.outer(mean, mean), examples.mean(axis=0) - mean)
    constant = np.linalg.solve(exact, mean)
    coefficients, *_ = np.linalg.lstsq(np.stack([vectors[0], constant], 1), discriminant, rcond=None)
    fitted = np.stack([vectors[0], constant], 1) @ coefficients
    np.testing.assert_allclose(fitted, discriminant, atol=1e-4 * np.abs(discriminant).max())


def test_texts_and_negatives_count_with_their_weights() -> None:
    rng = np.random.default_rng(1)
    moment = second_moment(unit_vectors(rng, 200))
    counts, against = np.array([4, 0, 1]), np.array([0, 2, 3])
    examples, negatives, texts = unit_vectors(rng, 5), unit_vectors(rng, 5), unit_vectors(rng, 3)
    vectors = vectors_from_examples(
        moment,
        ExampleSums.from_ragged(examples, counts),
        texts,
        np.array([True, True, False]),
        ExampleSums.from_ragged(negatives, against),
    )
    means = [
        (examples[:4].sum(0) + texts[0]) / 5,
        texts[1] - 0.25 * negatives[:2].mean(0),
        examples[4] - 0.25 * negatives[2:].mean(0),
    ]
    wanted = np.stack(means).astype(np.float64) @ np.linalg.inv(moment)
    np.testing.assert_allclose(vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("expected", [None, 0.05, 0.5])
def test_a_scale_reaches_the_rate_that_is_expected(expected: float | None) -> None:
    """As counted over all scores; a little less would not reach it."""
    rng = np.random.default_rng(2)
    labels, queries, new = unit_vectors(rng, 500), unit_vectors(rng, 400), 3 * unit_vectors(rng, 30)
    rate = EntryRate.from_index(index_version("exact", labels, queries), queries)
    assert (rate.top, rate.trained, rate.usual) == (10, 500, 0.02)
    np.testing.assert_allclose(rate.thresholds, np.sort(queries @ labels.T, axis=1)[:, -10], rtol=1e-5)
    aim = rate.usual if expected is None else expected
    scaling = rate.scaling(new, aim)

    def entries(scale: float) -> int:
        return int((scale * (queries @ new.T) >= rate.thresholds[:, None]).sum())

    wanted = round(aim * 400 * 30)
    assert entries(scaling.scale * (1 + 1e-5)) >= wanted > entries(scaling.scale * (1 - 1e-5))
    assert scaling.labels == 30
    assert scaling.rate == pytest.approx(aim, rel=0.02)


def test_rates_where_there_is_little_to_count() -> None:
    """Few labels, one new label, labels that score nothing, no queries, no trained labels."""
    rng = np.random.default_rng(3)
    labels, queries = unit_vectors(rng, 40), unit_vectors(rng, 50)
    held = index_version("exact", labels, queries)
    rate = EntryRate.from_index(held, queries)
    assert rate.top == 4
    one = rate.scaling(labels[:1], 1e-9)
    assert one.rate == 1 / 50
    assert rate.scaling(np.zeros((2, DIMENSION), np.float32), 0.1).scale == 1
    assert rate.scaling(labels[:0], 0.1).scale == 1
    assert np.isnan(EntryRate.from_index(held, queries[:0]).scaling(labels, 0.1).rate)
    nothing = EntryRate.from_index(held, queries, np.zeros(40, bool))
    assert (nothing.usual, len(nothing.queries)) == (0, 0)
    assert np.isnan(nothing.scaling(labels, 0.1).rate)


def test_only_living_trained_labels_set_thresholds() -> None:
    rng = np.random.default_rng(4)
    labels, queries = unit_vectors(rng, 200), unit_vectors(rng, 60)
    held = index_version("exact", labels, queries).remove(np.arange(50))
    trained = np.arange(200) % 2 == 0
    rate = EntryRate.from_index(held, queries, trained)
    kept = np.flatnonzero(trained & (np.arange(200) >= 50))
    assert rate.trained == len(kept) == 75
    np.testing.assert_allclose(rate.thresholds, np.sort(queries @ labels[kept].T, axis=1)[:, -7], rtol=1e-5)
