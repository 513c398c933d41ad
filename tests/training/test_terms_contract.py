"""What every term of the objective keeps to, whichever it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn.functional import normalize
from worlds import tiny_config

from xmc.config import TrainConfig
from xmc.data.targets import Targets
from xmc.training.supervision.known import KnownPairs
from xmc.training.terms import TERMS, EmbeddedStep, Term, terms_of

QUERIES, LABELS, DIMENSION = 4, 9, 6
EXCLUDED, REJECTED = 7, 2
"""A label that all queries exclude, and one that was judged not relevant to all of them."""


def config(loss: str = "decoupled_softmax", **changes: object) -> TrainConfig:
    """One that asks for every term."""
    return tiny_config(
        **{"objective.loss": loss, "objective.distillation.teacher": "some run", "objective.distillation.weight": 0.5},
        label_vectors="prototypes",
        **changes,
    )


def embedded(seed: int = 0, weight: float = 1.0) -> EmbeddedStep:
    random = torch.Generator().manual_seed(seed)
    queries, labels, texts = (
        normalize(torch.randn(count, DIMENSION, generator=random, dtype=torch.float64)).requires_grad_()
        for count in (QUERIES, LABELS, LABELS)
    )
    positives = np.zeros((QUERIES, LABELS), np.float32)
    positives[[0, 0, 1, 2, 3], [0, 4, 1, 8, 5]] = 1.0
    positives[0, 0] = weight
    rejected = np.zeros((QUERIES, LABELS), bool)
    rejected[:, REJECTED] = True
    excluded = np.array([[row, EXCLUDED] for row in range(QUERIES)])
    taught = np.zeros((QUERIES, LABELS), np.float32)
    taught[:, [EXCLUDED, REJECTED, 3]] = 0.25
    taught[range(QUERIES), [0, 1, 8, 5]] = 0.5
    targets = Targets.from_pairs(csr_matrix(positives), csr_matrix(rejected), excluded)
    batch = KnownPairs(targets, config(**{"objective.relevance_weights": True}), csr_matrix(taught)).batch(
        0, np.arange(QUERIES)
    )
    temperature = torch.tensor(0.2, dtype=torch.float64)
    return EmbeddedStep(queries, labels, texts, batch.targets, batch.taught, None, temperature, None, 2**20, 0)


def term(name: str, loss: str = "decoupled_softmax") -> Term:
    return {one.name: one for one in terms_of(config(loss))}[name]


def gradients(one: Term, step: EmbeddedStep) -> dict[str, Tensor]:
    inputs = {"queries": step.queries, "labels": step.labels, "texts": step.texts}
    given = {name: tensor for name, tensor in inputs.items() if tensor is not None}
    found = torch.autograd.grad(one.loss(step), list(given.values()), allow_unused=True)
    pairs = zip(given, found, strict=True)
    return {name: torch.zeros_like(given[name]) if gradient is None else gradient for name, gradient in pairs}


def test_a_configuration_that_asks_for_everything_has_every_term() -> None:
    assert [one.name for one in terms_of(config())] == list(TERMS)
    assert [one.name for one in terms_of(tiny_config())] == ["ranking"]
    weights = {one.name: one.weight for one in terms_of(config())}
    assert weights["ranking"] == weights["distillation"] == 0.5
    assert weights["prototype regularisation"] == pytest.approx(0.05)


@pytest.mark.parametrize("loss", ["decoupled_softmax", "softmax", "triplet_margin"])
@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_a_finite_number_with_gradients(name: str, loss: str) -> None:
    one, step = term(name, loss), embedded()
    value = one.loss(step)
    assert value.shape == ()
    assert bool(value.isfinite())
    found = gradients(one, step)
    assert bool(found["queries"].abs().sum() > 0)
    assert bool(found["texts"].abs().sum() > 0) == one.needs_texts


@pytest.mark.parametrize("loss", ["decoupled_softmax", "softmax", "triplet_margin"])
@pytest.mark.parametrize("name", TERMS)
def test_a_label_that_every_query_excludes_takes_no_gradient(name: str, loss: str) -> None:
    for seed in range(3):
        found = gradients(term(name, loss), embedded(seed))
        assert not bool(found["labels"][EXCLUDED].any())
        assert not bool(found["texts"][EXCLUDED].any())


PUSHES_OTHERS = {"label to query", "prototype regularisation"}
"""In the first, queries compete for labels that have a positive; the second pulls prototypes, wherever the label belongs."""


@pytest.mark.parametrize("name", [name for name in TERMS if name not in PUSHES_OTHERS])
def test_a_label_that_was_judged_not_relevant_is_pushed_away(name: str) -> None:
    """Also where the teacher names it."""
    step = embedded()
    one = term(name)
    found = gradients(one, step)["texts" if one.needs_texts else "labels"][REJECTED]
    assert float(torch.dot(found, step.queries.detach().sum(0))) > 0


@pytest.mark.parametrize("name", ["ranking", "text ranking"])
def test_relevance_weighs_the_positives_of_a_query(name: str) -> None:
    """The loss of query 0, which has two positives, is their weighted mean; queries with one positive see no difference."""
    light, even, heavy = (term(name).loss(embedded(weight=weight)) for weight in (1e-6, 1.0, 1e6))
    assert not torch.equal(light, even)
    torch.testing.assert_close((light + heavy) / 2, even)
