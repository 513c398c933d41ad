"""What a step minimises, against plain formulas over all scores in float64."""

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
from xmc.errors import ConfigError
from xmc.training.distributed import World
from xmc.training.negatives import StepLabels
from xmc.training.objective import Objective
from xmc.training.supervision.known import KnownPairs
from xmc.training.targets import StepTargets

QUERIES, LABELS, DIMENSION = 7, 11, 6
POSITIVES = [[0, 3], [1], [], [4, 5, 6], [10], [2], [7, 0]]
EXCLUDED = [[1], [], [], [0], [], [9, 10], []]
TAUGHT = {(0, 0): 0.75, (0, 2): 0.25, (1, 1): 1.0, (3, 4): 0.5, (3, 9): 0.5, (6, 0): 1.0}


def pairs(lists: list[list[int]]) -> csr_matrix:
    rows = np.repeat(np.arange(len(lists)), [len(row) for row in lists])
    columns = np.concatenate([np.sort(row) for row in lists]).astype(int)
    return csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (len(lists), LABELS))


def taught_pairs() -> csr_matrix:
    entries = np.array(list(TAUGHT))
    return csr_matrix((list(TAUGHT.values()), (entries[:, 0], entries[:, 1])), (QUERIES, LABELS))


def step_labels(taught: bool = False, rejected: list[list[int]] | None = None) -> StepLabels:
    excluded = np.argwhere(pairs(EXCLUDED).toarray() > 0)
    judged = None if rejected is None else pairs(rejected).astype(bool)
    known = KnownPairs(
        Targets.from_pairs(pairs(POSITIVES), judged, excluded), tiny_config(), taught_pairs() if taught else None
    )
    batch = known.batch(0, np.arange(QUERIES))
    rows = torch.arange(LABELS)
    return StepLabels(rows, rows, batch.targets, batch.taught)


def embeddings(count: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, DIMENSION, generator=random, dtype=torch.float64)).requires_grad_()


def objective(config: TrainConfig, *given: Tensor | None, taught: bool = False) -> Tensor:
    queries, labels, texts = given
    assert queries is not None
    assert labels is not None
    one = Objective(config, DIMENSION, World())
    return one(queries, labels, texts, step_labels(taught), slice(0, LABELS), torch.tensor(0.2, dtype=torch.float64))


def triplets(scores: Tensor, positives: list[list[int]], excluded: list[list[int]], k: int) -> Tensor:
    total = []
    for row, own in enumerate(positives):
        others = [j for j in range(scores.shape[1]) if j not in own and j not in excluded[row]]
        hardest = sorted(others, key=lambda j: -scores[row, j].item())[:k]
        terms = []
        for positive in own:
            gaps = scores[row, hardest] - scores[row, positive]
            lost = (gaps + gaps.detach().abs().clamp(0.1, 0.3)).clamp_min(0)
            weights = torch.where(lost > 0, (scores[row, hardest] / 0.1).exp(), 0.0)
            terms.append((lost * weights).sum() / weights.sum().clamp_min(1e-300))
        if terms:
            total.append(torch.stack(terms).mean())
    return torch.stack(total).mean()


def regularised(queries: Tensor, texts: Tensor, prototypes: Tensor, k: int) -> Tensor:
    alone, scores = queries @ texts.T, queries @ prototypes.T
    pulled, pushed = [], []
    for row, own in enumerate(POSITIVES):
        others = [j for j in range(LABELS) if j not in own and j not in EXCLUDED[row]]
        pulled += [(alone[row, j] - scores[row, j] + 0.1).clamp_min(0) for j in own]
        if own:
            hardest = sorted(others, key=lambda j: -scores[row, j].item())[:k]
            pushed += [(scores[row, j] - alone[row, j] + 0.1).clamp_min(0) for j in hardest]
    means = [torch.stack([one for one in terms if one > 0]).mean() for terms in (pulled, pushed)]
    return (means[0] + means[1]) / 2


def turned(lists: list[list[int]]) -> list[list[int]]:
    return [[row for row, own in enumerate(lists) if label in own] for label in range(LABELS)]


def gradients(loss: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, of))


def test_prototypes_with_the_triplet_loss() -> None:
    """The paper's four parts: prototypes, texts, texts against queries, and a tenth of the regularisation."""
    queries, labels, texts = embeddings(QUERIES, 0), embeddings(LABELS, 1), embeddings(LABELS, 2)
    config = tiny_config(
        label_vectors={"kind": "prototypes", "regularisation_negatives": 3},
        **{"objective.loss": "triplet_margin", "objective.loss.negatives": 3},
    )
    found = objective(config, queries, labels, texts)
    expected = triplets(queries @ labels.T, POSITIVES, EXCLUDED, 3) + triplets(
        queries @ texts.T, POSITIVES, EXCLUDED, 3
    )
    expected = expected + triplets(texts @ queries.T, turned(POSITIVES), turned(EXCLUDED), 3)
    expected = expected + 0.1 * regularised(queries, texts, labels, 3)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        gradients(found, queries, labels, texts), gradients(expected, queries, labels, texts), strict=True
    ):
        torch.testing.assert_close(one, other)


def softmax_over(scores: Tensor, positives: list[list[int]], excluded: list[list[int]]) -> Tensor:
    total = []
    for row, own in enumerate(positives):
        others = [j for j in range(scores.shape[1]) if j not in own and j not in excluded[row]]
        terms = [torch.logsumexp(scores[row, [j, *others]], 0) - scores[row, j] for j in own]
        if terms:
            total.append(torch.stack(terms).mean())
    return torch.stack(total).mean()


def test_prototypes_with_a_softmax_and_parts_left_out() -> None:
    queries, labels, texts = embeddings(QUERIES, 0), embeddings(LABELS, 1), embeddings(LABELS, 2)
    weights = {"text_weight": 0.0, "label_to_query_weight": 0.5, "regularisation": 0.0}
    found = objective(tiny_config(label_vectors={"kind": "prototypes", **weights}), queries, labels, texts)
    expected = softmax_over(queries @ labels.T / 0.2, POSITIVES, EXCLUDED)
    expected = expected + 0.5 * softmax_over(texts @ queries.T / 0.2, turned(POSITIVES), turned(EXCLUDED))
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        gradients(found, queries, labels, texts), gradients(expected, queries, labels, texts), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "loss", ["decoupled_softmax", "softmax", "soft_topk", "triplet_margin", "binary_cross_entropy"]
)
def test_nested_dimensions_are_the_mean_over_cut_embeddings(loss: str) -> None:
    queries, labels = embeddings(QUERIES, 0), embeddings(LABELS, 1)
    found = objective(
        tiny_config(**{"objective.loss": loss, "objective.nested_dimensions": [2, 3]}), queries, labels, None
    )
    given = [(normalize(queries[:, :size]), normalize(labels[:, :size])) for size in (2, 3)] + [(queries, labels)]
    temperature, places = torch.tensor(0.2, dtype=torch.float64), slice(0, LABELS)
    parts = [
        Objective(tiny_config(**{"objective.loss": loss}), one.shape[1], World())(
            one, other, None, step_labels(), places, temperature
        )
        for one, other in given
    ]
    expected = torch.stack(parts).mean()
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, queries, labels), gradients(expected, queries, labels), strict=True):
        torch.testing.assert_close(one, other)


def left_out_of_teaching() -> list[list[int]]:
    """The pairs that count nowhere in what the teacher says: excluded ones, and positives that it does not name."""
    return [
        [label for label in [*own, *out] if label in out or (row, label) not in TAUGHT]
        for row, (own, out) in enumerate(zip(POSITIVES, EXCLUDED, strict=True))
    ]


def cross_entropy(scores: Tensor) -> Tensor:
    """Softmax cross-entropy to the teacher's labels that are not excluded, of the labels that count."""
    rows: dict[int, list[tuple[int, float]]] = {}
    for (row, label), share in TAUGHT.items():
        if label not in EXCLUDED[row]:
            rows.setdefault(row, []).append((label, share))
    terms = []
    for row, named in rows.items():
        counted = [label for label in range(LABELS) if label not in left_out_of_teaching()[row]]
        partition = torch.logsumexp(scores[row, counted], 0)
        terms.append(
            sum(share * (partition - scores[row, label]) for label, share in named) / sum(share for _, share in named)
        )
    return torch.stack(terms).mean()


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_a_teacher_adds_the_cross_entropy_to_its_labels(weight: float) -> None:
    queries, labels = embeddings(QUERIES, 0), embeddings(LABELS, 1)
    config = tiny_config(**{"objective.distillation.teacher": "some run", "objective.distillation.weight": weight})
    found = objective(config, queries, labels, None, taught=True)
    scores = queries @ labels.T / 0.2
    expected = weight * cross_entropy(scores) + (1 - weight) * softmax_over(scores, POSITIVES, EXCLUDED)
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, queries, labels), gradients(expected, queries, labels), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_excluded_pairs_count_nowhere_under_a_teacher(weight: float) -> None:
    """Moving a label's embedding away moves no query that excludes it, or has it as a positive that the teacher leaves out."""
    config = tiny_config(**{"objective.distillation.teacher": "some run", "objective.distillation.weight": weight})
    changed = 0
    for row, out in enumerate(left_out_of_teaching()):
        for label in out:
            if weight < 1 and label not in EXCLUDED[row]:
                continue  # a positive of the data's own share
            before, after = [], []
            for shift, gradient_of in ((0.0, before), (1.0, after)):
                queries, labels = embeddings(QUERIES, 0), embeddings(LABELS, 1)
                with torch.no_grad():
                    labels[label] += shift
                (gradient,) = gradients(objective(config, queries, labels, None, taught=True), queries)
                gradient_of.append(gradient)
            assert torch.equal(before[0][row], after[0][row]), (row, label)
            changed += int(not torch.equal(before[0], after[0]))
    assert changed >= 3  # other queries see the label move


def test_rejected_pairs_are_pushed_like_any_negative_and_never_pulled() -> None:
    queries, labels = embeddings(QUERIES, 0), embeddings(LABELS, 1)
    rejected = [[2], [], [5], [], [], [], [1]]
    one = Objective(tiny_config(), DIMENSION, World())
    temperature = torch.tensor(0.2, dtype=torch.float64)
    losses = [
        one(queries, labels, None, step_labels(rejected=judged), slice(0, LABELS), temperature)
        for judged in (None, rejected)
    ]
    assert torch.equal(*losses)
    targets = step_labels(taught=True, rejected=[[2], [], [5], [], [], [], [1]]).taught
    assert targets is not None
    named = list(zip(targets.positives.rows.tolist(), targets.positives.indices.tolist(), strict=True))
    assert (0, 2) not in named  # the teacher names it, but somebody judged it not relevant
    assert targets.exclude is not None
    left_out = list(zip(targets.exclude.rows.tolist(), targets.exclude.indices.tolist(), strict=True))
    assert (0, 2) not in left_out


def test_transposed_targets_are_those_of_the_transposed_matrix() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        queries, labels = (int(count) for count in rng.integers(1, 9, 2))
        pull = rng.random((queries, labels)).astype(np.float32) * (rng.random((queries, labels)) < 0.4)
        push = (pull == 0) & (rng.random((queries, labels)) < 0.5)
        known = (pull > 0) | push | (rng.random((queries, labels)) < 0.2)
        turned_round = entries(known, pull, push).transposed()
        expected = entries(known.T, pull.T, push.T)
        assert turned_round.count == queries
        for name in ("indptr", "labels", "pull", "push"):
            assert torch.equal(getattr(turned_round, name), getattr(expected, name)), name


def entries(known: np.ndarray, pull: np.ndarray, push: np.ndarray) -> StepTargets:
    rows, columns = np.nonzero(known)
    indptr = np.searchsorted(rows, np.arange(len(known) + 1))
    given = (indptr, columns, pull[rows, columns], push[rows, columns].astype(np.float32))
    return StepTargets(*(torch.from_numpy(part) for part in given), known.shape[1])  # type: ignore[arg-type, call-arg]


def test_targets_among_candidates_and_within_a_part() -> None:
    rng = np.random.default_rng(1)
    known = rng.random((6, 20)) < 0.5
    pull = np.where(known, rng.integers(0, 3, (6, 20)), 0).astype(np.float32)
    targets = entries(known, pull, np.zeros_like(known))
    rows = torch.tensor([0, 3, 4, 11, 19])
    chosen = targets.among(rows)
    expected = entries(known[:, rows], pull[:, rows], np.zeros((6, 5), bool))
    part = targets.within(slice(4, 12))
    of_part = entries(known[:, 4:12], pull[:, 4:12], np.zeros((6, 8), bool))
    for one, other in ((chosen, expected), (part, of_part)):
        assert one.count == other.count
        assert torch.equal(one.indptr, other.indptr)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.pull, other.pull)
    assert len(targets.among(torch.zeros(0, dtype=torch.int64)).labels) == 0


def test_dimensions_that_do_not_nest_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"nested_dimensions must be below the 6 of the encoder, but are \[2, 6\]"):
        Objective(tiny_config(**{"objective.nested_dimensions": [2, 6]}), DIMENSION, World())
    with pytest.raises(ConfigError, match=r"nested_dimensions must name each dimension once, but is \[2, 2\]"):
        tiny_config(**{"objective.nested_dimensions": [2, 2]})
    with pytest.raises(ConfigError, match=r"nested_dimensions must be at least 1, but is 0"):
        tiny_config(**{"objective.nested_dimensions": [0]})


@pytest.mark.parametrize(
    "kind", ["decoupled_softmax", "softmax", "binary_cross_entropy", "soft_topk", "triplet_margin"]
)
def test_queries_meet_labels_in_bfloat16_where_asked_to(kind: str) -> None:
    """As on a GPU whose encoders compute in it: values and gradients, of float32, but for the rounding of embeddings."""
    config = tiny_config(**{"objective.loss": kind})
    found = []
    for multiplied in (None, torch.bfloat16):
        given = [
            embeddings(count, seed).detach().float().requires_grad_() for count, seed in ((QUERIES, 0), (LABELS, 1))
        ]
        one = Objective(config, DIMENSION, World(), multiplied)
        loss = one(given[0], given[1], None, step_labels(), slice(0, LABELS), torch.tensor(0.2))
        loss.backward()
        found.append([loss.detach(), *(leaf.grad for leaf in given)])
    for exact, rounded in zip(*found, strict=True):
        assert rounded is not None
        assert rounded.dtype == torch.float32
        # An embedding, a score's gradient and the result are rounded to eight bits; a score's error counts 1 / 0.2 times.
        assert (rounded - exact).norm() < 8 * 2.0**-8 * exact.norm()
    assert not torch.equal(found[0][1], found[1][1])
