"""Entries of a step as kernels take them: which are seen, which count nowhere, and which are candidates as any other."""

from __future__ import annotations

import pytest
import torch
from loss_formulas import assert_agree, cosines, dense_loss
from torch import Tensor
from worlds import tiny_config

from xmc.kernels.losses import LOSSES, Positives
from xmc.training.distributed import World
from xmc.training.negatives import StepLabels
from xmc.training.objective import Objective
from xmc.training.targets import StepTargets

QUERIES, LABELS, DIMENSION = 3, 19, 6


def targets(*rows: dict[int, tuple[float, float]]) -> StepTargets:
    """Entries of each query: (pull, push) by label."""
    flat = [(label, *row[label]) for row in rows for label in sorted(row)]
    indptr = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)
    pull, push = (torch.tensor([entry[place] for entry in flat]) for place in (1, 2))
    return StepTargets(indptr, torch.tensor([entry[0] for entry in flat]), pull, push, LABELS)


def as_rows(positives: Positives | None) -> list[dict[int, tuple[float, float]]]:
    assert positives is not None
    values = [
        torch.full((len(positives.indices),), missing) if given is None else given
        for given, missing in ((positives.weights, 1.0), (positives.push, 0.0))
    ]
    rows: list[dict[int, tuple[float, float]]] = [{} for _ in range(len(positives))]
    for row, label, pull, push in zip(positives.rows.tolist(), positives.indices.tolist(), *values, strict=True):
        rows[row][label] = (float(pull), float(push))
    return rows


MIXED = targets(
    {0: (1.0, 0.0), 3: (0.0, 0.0), 5: (0.0, 1.0), 7: (0.0, 4.0), 9: (0.75, 0.25)},
    {2: (0.0, 0.5), 4: (0.0, 1.0)},
    {1: (1.0, 0.0), 8: (0.0, 0.0), 18: (2.0, 1.0)},
)
"""A positive, an excluded pair, a rejected one of push 1, of another, and uncertain ones."""


def test_kernels_see_every_entry_that_is_no_candidate_as_any_other() -> None:
    assert as_rows(MIXED.positives) == [
        {0: (1.0, 0.0), 7: (0.0, 4.0), 9: (0.75, 0.25)},
        {2: (0.0, 0.5)},
        {1: (1.0, 0.0), 18: (2.0, 1.0)},
    ]
    assert as_rows(MIXED.exclude) == [{3: (1.0, 0.0)}, {}, {8: (1.0, 0.0)}]
    assert as_rows(MIXED.never_negative) == [dict.fromkeys(row, (1.0, 0.0)) for row in ([0, 3, 9], [2], [1, 8])]
    assert MIXED.positive_labels.tolist() == [0, 1, 9, 18]
    assert MIXED.rejected_labels.tolist() == [4, 5, 7]


def test_without_a_push_that_a_kernel_must_know_there_is_none() -> None:
    """As before there were pushes: no weights where all are 1, and no pushes where all are 0."""
    plain = targets({0: (1.0, 0.0), 3: (0.0, 1.0), 4: (0.0, 0.0)}, {5: (1.0, 0.0)}, {})
    assert plain.positives.weights is None
    assert plain.positives.push is None
    assert as_rows(plain.positives) == [{0: (1.0, 0.0)}, {5: (1.0, 0.0)}, {}]


def test_pushes_go_with_their_entries() -> None:
    """To the queries of each label, to candidates, and to a part of the labels."""
    turned = as_rows(MIXED.transposed().positives)
    assert {label: row for label, row in enumerate(turned) if row} == {
        0: {0: (1.0, 0.0)},
        1: {2: (1.0, 0.0)},
        2: {1: (0.0, 0.5)},
        7: {0: (0.0, 4.0)},
        9: {0: (0.75, 0.25)},
        18: {2: (2.0, 1.0)},
    }
    assert as_rows(MIXED.among(torch.tensor([2, 7, 18])).positives) == [
        {1: (0.0, 4.0)},
        {0: (0.0, 0.5)},
        {2: (2.0, 1.0)},
    ]
    assert as_rows(MIXED.within(slice(7, 10)).positives) == [{0: (0.0, 4.0), 2: (0.75, 0.25)}, {}, {}]


@pytest.mark.parametrize("name", LOSSES)
def test_the_objective_is_the_loss_of_all_entries(name: str) -> None:
    queries, labels, _ = cosines((QUERIES, LABELS, DIMENSION))
    temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    rows = torch.arange(LABELS)
    config = tiny_config(**{"objective.loss": name, "negatives": "all"})
    loss: Tensor = Objective(config, DIMENSION, World())(
        queries, labels, None, StepLabels(rows, rows, MIXED), slice(0, LABELS), temperature
    )
    scores = queries @ labels.T
    inputs = [queries, labels]
    if LOSSES[name].takes_temperature:
        scores, inputs = scores / temperature, [*inputs, temperature]
    expected = dense_loss(name, scores, MIXED.positives, MIXED.exclude)
    assert_agree(loss, expected, inputs)
