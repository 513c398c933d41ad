"""Random ragged problems that the kernels' tests share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor

from xmc.kernels.positives import Positives
from xmc.kernels.reductions import REDUCTIONS, Reduction
from xmc.kernels.statistics import row_statistics

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
    reason="triton is not installed, or TRITON_INTERPRET=1 not set where there is a GPU",
)

ENGINES = [
    pytest.param(("torch", "cpu"), id="torch"),
    pytest.param(("triton", "cpu"), id="triton", marks=needs_triton),
    pytest.param(("torch", "cuda"), id="torch-cuda", marks=pytest.mark.cuda),
    pytest.param(("triton", "cuda"), id="triton-cuda", marks=pytest.mark.cuda),
]
"""(engine, device); Triton on a CPU is its interpreter."""

CPU_ENGINES = ["torch", pytest.param("triton", marks=needs_triton)]

SHAPES = [(1, 1, 8), (3, 7, 16), (41, 401, 96), (64, 4099, 33)]


def random_positives(queries: int, labels: int, seed: int, most: int = 6, full: bool = True) -> Positives:
    """Rows of 0 to `most` positives; row 0 has none, and with `full` the last one of several every label, if few."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[list[int]] = []
    for row in range(queries):
        count = 0 if row == 0 else int(torch.randint(0, min(most, labels) + 1, (1,), generator=generator))
        rows.append(torch.randperm(labels, generator=generator)[:count].tolist())
    if queries > 2 and full and labels <= 150:
        rows[-1] = list(range(labels))
    return Positives.from_lists(rows)


KINDS = [(1.0, 0.0), (0.7, 0.0), (0.0, 0.0), (0.0, 0.3), (0.0, 1.0), (0.0, 4.0), (0.6, 0.4), (2.5, 1.5), (0.3, 1e-3)]
"""Pull and push of positives, a pair that counts nowhere, rejected pairs, and uncertain ones."""


def random_entries(queries: int, labels: int, seed: int, most: int = 9) -> Positives:
    """Rows of 0 to `most` entries of all KINDS. Of several rows, 0 has none, 1 rejected ones only, and 2 positives only."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(labels, generator=generator)[: min(most, labels)] for _ in range(queries)]
    lists, pull, push = [], [], []
    for number, row in enumerate(rows):
        count = 0 if number == 0 and queries > 1 else int(torch.randint(2, len(row) + 1, (1,), generator=generator))
        kinds = torch.randint(0, len(KINDS), (count,), generator=generator).tolist()
        kinds = {1: [5, *[3] * (count - 1)], 2: [kind % 2 for kind in kinds]}.get(number, kinds)
        if queries == 1:
            kinds[0] = 0
        lists.append(row[:count].tolist())
        pull.append([KINDS[kind][0] for kind in kinds])
        push.append([KINDS[kind][1] for kind in kinds])
    return Positives.from_lists(lists, pull, push)


@dataclass
class Problem:
    """Arguments of a row statistic; `tensors` are queries, labels, temperature, bias, shift, all with gradients."""

    tensors: list[Tensor]
    positives: Positives
    exclude: Positives | None
    slope: float = 1.3

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Problem:
        """The same numbers in another dtype."""
        tensors = [tensor.detach().to(device, dtype).requires_grad_() for tensor in self.tensors]
        exclude = None if self.exclude is None else self.exclude.to(device)
        return Problem(tensors, self.positives.to(device), exclude, self.slope)

    def reduction(self, name: str) -> Reduction:
        """The reduction of that name, with this problem's shift."""
        given = {"shift": self.tensors[4], "slope": self.slope}
        return REDUCTIONS[name](**{key: given[key] for key in signature(REDUCTIONS[name]).parameters})


def problem(shape: tuple[int, int, int], seed: int = 0, size: float = 1.0, exclude: bool = True) -> Problem:
    """Scores of some `size`; a seventh of the pairs' bias and shift are random; float64."""
    queries, labels, dimension = shape
    generator = torch.Generator().manual_seed(seed)

    def random(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float64)

    tensors = [
        random(queries, dimension) * size / dimension**0.5,
        random(labels, dimension),
        torch.tensor(0.7, dtype=torch.float64),
        random(labels),
        random(queries),
    ]
    excluded = random_positives(queries, labels, seed + 100, full=False) if exclude else None
    return Problem([t.requires_grad_() for t in tensors], random_positives(queries, labels, seed), excluded)


def statistics_of(name: str, problem: Problem, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`row_statistics` of a problem by the reduction of that name."""
    queries, labels, temperature, bias, _ = problem.tensors
    return row_statistics(
        problem.reduction(name),
        queries,
        labels,
        problem.positives,
        temperature,
        label_bias=bias,
        exclude=problem.exclude,
        **options,
    )


def evaluate(name: str, problem: Problem, **options: Any) -> list[Tensor]:
    """Value, derivative and positive scores, then the gradients of a fixed random projection of them, in float64."""
    statistics = statistics_of(name, problem, **options)
    return [*statistics, *project(statistics, problem.tensors)]


def dense(name: str, one: Problem) -> list[Tensor]:
    """The same in plain torch, in the dtype of the arguments, with the B x L scores held."""
    queries, labels, temperature, bias, shift = one.tensors
    shape = (len(queries), len(labels))
    positive = torch.zeros(shape, dtype=torch.bool, device=queries.device)
    positive[one.positives.rows, one.positives.indices] = True
    counted = torch.ones_like(positive)
    if one.exclude is not None:
        counted[one.exclude.rows, one.exclude.indices] = False
    counted |= positive
    scores = ((queries @ labels.T) / temperature + bias).float()
    derivative = torch.zeros(len(queries), device=queries.device)
    if name == "log_sum_exp":
        counted &= ~positive
        some = counted.any(1)
        value = torch.full_like(derivative, -torch.inf)
        value[some] = scores.masked_fill(~counted, -torch.inf)[some].logsumexp(1)
    elif name == "sigmoid":
        sigmoids = torch.sigmoid(one.slope * (scores + shift[:, None]))
        value, derivative = (
            (sigmoids * counted).sum(1),
            (one.slope * sigmoids * (1 - sigmoids) * counted).sum(1).detach(),
        )
    else:
        value = (torch.nn.functional.softplus(scores) * counted).sum(1)
    found = (value, derivative, scores[one.positives.rows, one.positives.indices])
    return [*found, *project(found, one.tensors)]


def project(found: tuple[Tensor, Tensor, Tensor], tensors: list[Tensor]) -> list[Tensor]:
    """Gradients of a fixed random projection of values and positive scores; zeros where there is none."""
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one.device) for one in found]
    finite = found[0].isfinite()
    total = (found[0].double()[finite] * weights[0][finite]).sum() + (found[2].double() * weights[2]).sum()
    gradients = torch.autograd.grad(total, tensors, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(gradients, tensors, strict=True)]


NAMES = ["value", "derivative", "positive scores", "queries", "labels", "temperature", "bias", "shift"]


DEVIATIONS = 5.0
"""Standard deviations that no rounding error of a few thousand goes beyond."""


def rounding_noise(name: str, problem: Problem, dtype: torch.dtype) -> list[float]:
    """The standard deviation of each tensor of `evaluate` where the scores' gradients dS are rounded to a dtype; the largest.

    A rounding to a precision ε moves a number by a part of at most ε/2, with a standard deviation of ε/√12 of it at most, and
    numbers of a sum independently: so dQ = dS·Z / τ has Σ_j (dS_ij z_jd)² ε²/12 / τ² for its variance, and so on.
    """
    queries, labels, temperature, bias, _ = (tensor.detach().double() for tensor in problem.tensors)
    products = queries @ labels.T / temperature
    scores = (products + bias).requires_grad_()
    counted = torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
    if problem.exclude is not None:
        counted[problem.exclude.rows, problem.exclude.indices] = False
    positive = (problem.positives.rows, problem.positives.indices)
    reduction = problem.to(torch.float64, scores.device.type).reduction(name)
    counted[positive] = reduction.takes_positives
    found = (*reduction.reference(scores, counted), scores[positive])
    (gradient,) = project(found, [scores])
    squares, unit = gradient.square(), torch.finfo(dtype).eps / 12**0.5
    of_queries = (squares @ labels.square()).sqrt().max() / temperature
    of_labels = (squares.T @ queries.square()).sqrt().max() / temperature
    of_temperature = (squares * products.square()).sum().sqrt() / temperature
    of_bias = squares.sum(0).sqrt().max()
    return [0.0] * 3 + [unit * float(one) for one in (of_queries, of_labels, of_temperature, of_bias)] + [0.0]


def assert_no_worse(
    actual: list[Tensor],
    plain: list[Tensor],
    truth: list[Tensor],
    noise: list[float] | None = None,
    slack: float = 8.0,
) -> None:
    """Each tensor is as near to the truth as plain torch in the same dtype, plus a small term.

    That is some units of float32 rounding, and one rounding to the tensor's own dtype. Plain torch rounds the scores'
    gradients too, and may be lucky with it: as much as DEVIATIONS of their `noise` is allowed in any case.
    """
    noise = noise or [0.0] * len(NAMES)
    for name, one, other, exact, deviation in zip(NAMES, actual, plain, truth, noise, strict=True):
        finite = exact.isfinite()
        assert torch.equal(one.isfinite(), finite), name
        if not finite.any():
            continue
        error = (one.double() - exact)[finite].abs().max()
        units = slack * torch.finfo(torch.float32).eps + torch.finfo(one.dtype).eps / 2
        rounding = units * exact[finite].abs().max()
        allowed = (other.double() - exact)[finite].abs().max().clamp_min(DEVIATIONS * deviation) + rounding
        assert error <= allowed, f"{name}: {error} > {allowed}"
