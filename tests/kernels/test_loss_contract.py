"""What holds for every registered loss: its formula, what it says of itself, and what it refuses.

A new loss needs its formula in `loss_formulas.FORMULAS`, and nothing else here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from families import members_restored
from loss_formulas import FORMULAS, assert_agree, cosines, dense_loss, weighted_positives
from random_kernel_inputs import CPU_ENGINES, random_positives
from torch import Tensor

from xmc.errors import InputError
from xmc.kernels.losses import LOSSES, Loss, Positives
from xmc.kernels.losses.loss import argument_names
from xmc.kernels.shards import LabelShard

SHAPES = [(1, 7, 3), (11, 67, 5), (23, 401, 17)]
TEMPERATURE = 0.07
SETTINGS: dict[str, dict[str, Any]] = {
    "soft_topk": {"k": 3, "slope": 1.3},
    "triplet_margin": {"k": 4, "margins": (0.1, 0.7), "temperature": 0.3},
}
"""Numbers that float32 cannot hold."""


def loss_of(name: str) -> Loss:
    return LOSSES[name].with_settings(**SETTINGS.get(name, {}))


def takes(name: str, option: str) -> bool:
    return option in argument_names(LOSSES[name].function)


def test_every_loss_has_a_formula() -> None:
    assert set(FORMULAS) == set(LOSSES)


@pytest.mark.parametrize("impl", ["torch", "reference"])
@pytest.mark.parametrize("tile_bytes", [520, 2**26])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradients_equal_the_formula_in_float64(
    name: str, shape: tuple[int, int, int], tile_bytes: int, impl: str
) -> None:
    """To 1e-12, with weights, excluded pairs, a bias of labels where there may be one, and a learned temperature."""
    queries, labels, bias = cosines(shape)
    positives = weighted_positives(shape[0], shape[1])
    exclude = random_positives(shape[0], shape[1], seed=5, full=False, most=3)
    temperature = torch.tensor(TEMPERATURE, dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"exclude": exclude, "impl": impl, "tile_bytes": tile_bytes}
    inputs, scores = [queries, labels], queries @ labels.T
    if LOSSES[name].takes_temperature:
        inputs, scores = [*inputs, temperature], scores / temperature
    if takes(name, "label_bias"):
        inputs, scores, options["label_bias"] = [*inputs, bias], scores + bias, bias
    expected = dense_loss(name, scores, positives, exclude, **SETTINGS.get(name, {}))
    actual = loss_of(name)(queries, labels, positives, temperature, **options)
    assert_agree(actual, expected, inputs)
    number = loss_of(name)(queries, labels, positives, TEMPERATURE, **options)
    assert torch.equal(number, actual)


@pytest.mark.parametrize("impl", CPU_ENGINES)
@pytest.mark.parametrize("name", LOSSES)
def test_engines_agree_with_the_reference_in_float32(name: str, impl: str) -> None:
    generator = torch.Generator().manual_seed(3)
    queries, labels = (
        torch.nn.functional.normalize(torch.randn(count, 32, generator=generator)).requires_grad_()
        for count in (33, 601)
    )
    positives = random_positives(33, 601, seed=5, full=False)
    values = [LOSSES[name](queries, labels, positives, impl=engine, tile_bytes=2**15) for engine in (impl, "reference")]
    torch.testing.assert_close(values[0].double(), values[1].double(), rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(value, [queries, labels]) for value in values]
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5 * float(right.abs().max()))


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_any_positive_is_zero(name: str) -> None:
    queries = torch.randn(3, 4, requires_grad=True)
    loss = LOSSES[name](queries, torch.randn(7, 4), Positives.from_lists([[], [], []]))
    assert loss.item() == 0.0
    loss.backward()
    assert queries.grad is not None
    assert not queries.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_rows_without_positives_change_nothing(name: str) -> None:
    torch.manual_seed(5)
    queries, labels = torch.randn(4, 6, dtype=torch.float64), torch.randn(30, 6, dtype=torch.float64)
    some = LOSSES[name](queries[:2], labels, Positives.from_lists([[3], [7, 9]]))
    more = LOSSES[name](queries, labels, Positives.from_lists([[3], [7, 9], [], []]))
    torch.testing.assert_close(some, more)


@pytest.mark.parametrize("name", LOSSES)
def test_says_whether_it_takes_a_temperature(name: str) -> None:
    queries, labels, _ = cosines((11, 67, 5))
    positives = weighted_positives(11, 67)
    first, second = (LOSSES[name](queries, labels, positives, temperature) for temperature in (0.05, 0.5))
    assert (not torch.equal(first, second)) == LOSSES[name].takes_temperature


@pytest.mark.parametrize("name", LOSSES)
def test_says_whether_labels_may_be_a_sample(name: str) -> None:
    """A loss over all labels refuses the probabilities of a sample; the others use them, or need none."""
    queries, labels, _ = cosines((11, 67, 5))
    positives, log_inclusion = weighted_positives(11, 67), torch.full((67,), 0.3, dtype=torch.float64).log()
    if LOSSES[name].over_all_labels:
        with pytest.raises(InputError, match=f"The loss {name} takes no log_inclusion"):
            LOSSES[name](queries, labels, positives, log_inclusion=log_inclusion)
        return
    plain = LOSSES[name](queries, labels, positives)
    sampled = LOSSES[name](queries, labels, positives, log_inclusion=log_inclusion)
    assert (not torch.equal(plain, sampled)) == takes(name, "log_inclusion")


@pytest.mark.parametrize("name", LOSSES)
def test_says_whether_labels_may_be_split_over_processes(name: str) -> None:
    """With how many processes they compute the same is tested in `tests/training` by torchrun."""
    queries, labels, _ = cosines((11, 67, 5))
    positives = weighted_positives(11, 67)
    assert takes(name, "shard") == LOSSES[name].splits_labels
    if not LOSSES[name].splits_labels:
        with pytest.raises(InputError, match=f"The loss {name} takes no shard"):
            LOSSES[name](queries, labels, positives, shard=LabelShard(0, 67))


@pytest.mark.parametrize("name", LOSSES)
def test_options_of_none_count_as_not_given(name: str) -> None:
    queries, labels, _ = cosines((11, 67, 5))
    positives = weighted_positives(11, 67)
    nothing = dict.fromkeys(("exclude", "log_inclusion", "shard", "label_bias", "impl"))
    assert torch.equal(LOSSES[name](queries, labels, positives, **nothing), LOSSES[name](queries, labels, positives))


@pytest.mark.parametrize("name", LOSSES)
def test_refuses_what_it_does_not_know(name: str) -> None:
    queries, labels, one = torch.randn(2, 3), torch.randn(9, 3), Positives.from_lists([[0], [1]])
    loss = LOSSES[name]
    with pytest.raises(InputError, match=r"positives must be Positives, not list; Positives\.from_lists"):
        loss(queries, labels, [[0], [1]])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="exclude must be Positives, not list"):
        loss(queries, labels, one, exclude=[[2], [3]])
    with pytest.raises(InputError, match=f"The loss {name} has no setting 'slopes'; it has "):
        loss.with_settings(slopes=2.0)
    with pytest.raises(InputError, match=f"The loss {name} takes no margin; it takes "):
        loss(queries, labels, one, margin=0.3)


@pytest.fixture
def registered() -> Iterator[str]:
    """A loss from outside of the package."""

    def negated_mean(queries: Tensor, labels: Tensor, positives: Positives, *, weight: float = 1.0) -> Tensor:
        """The mean score of the positives, negated."""
        return -weight * (queries[positives.rows] * labels[positives.indices]).sum(1).mean()

    with members_restored():
        LOSSES.register("toy", Loss(negated_mean, takes_temperature=False, splits_labels=False))
        yield "toy"


def test_a_loss_from_outside(registered: str) -> None:
    queries, labels, one = torch.eye(2), torch.eye(2), Positives.from_lists([[0], [1]])
    assert LOSSES[registered].with_settings(weight=3.0)(queries, labels, one, 0.05, tile_bytes=100).item() == -3.0


@pytest.mark.parametrize("name", LOSSES)
def test_an_option_that_is_none_counts_as_not_given(name: str) -> None:
    queries, labels, _ = cosines((11, 67, 5))
    positives, loss = weighted_positives(11, 67), loss_of(name)
    given = dict.fromkeys(argument_names(loss.function)) | dict.fromkeys(("tile_bytes", "unknown"))
    assert torch.equal(loss(queries, labels, positives, **given), loss(queries, labels, positives))
