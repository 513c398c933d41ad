"""The streaming row statistics against the dense float64 reference: values, gradients, memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from xmc.errors import ConfigError, InputError
from xmc.kernels.statistics import Positives, label_statistics

SHAPES = [(1, 1, 3), (1, 7, 2), (5, 1, 4), (13, 129, 9), (41, 401, 23), (64, 1000, 16)]


def random_positives(queries: int, labels: int, seed: int, most: int = 6) -> Positives:
    """Rows of 0 to `most` positives; row 0 has none, the last row has every label where that is affordable."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[list[int]] = []
    for row in range(queries):
        count = 0 if row == 0 else int(torch.randint(0, min(most, labels) + 1, (1,), generator=generator))
        rows.append(torch.randperm(labels, generator=generator)[:count].tolist())
    if queries > 2:
        rows[-1] = list(range(labels))
    return Positives.from_lists(rows)


def problem(
    shape: tuple[int, int, int], dtype: torch.dtype, seed: int = 0, size: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Positives]:
    queries, labels, dimension = shape
    generator = torch.Generator().manual_seed(seed)
    q = (torch.randn(queries, dimension, generator=generator, dtype=torch.float64) * size).to(dtype)
    z = torch.randn(labels, dimension, generator=generator, dtype=torch.float64).to(dtype)
    offsets = torch.randn(labels, generator=generator, dtype=torch.float64).to(dtype)
    temperature = torch.tensor(0.7, dtype=torch.float64).to(dtype)
    for tensor in (q, z, offsets, temperature):
        tensor.requires_grad_()
    return q, z, offsets, temperature, random_positives(queries, labels, seed)


def gradients(
    q: Tensor, z: Tensor, offsets: Tensor, temperature: Tensor, positives: Positives, **options: object
) -> list[Tensor]:
    """Values and the gradients of a fixed random projection of them."""
    negative, positive = label_statistics(q, z, positives, temperature, label_offsets=offsets, **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(7)
    weight_n = torch.randn(negative.shape, generator=generator, dtype=torch.float64)
    weight_p = torch.randn(positive.shape, generator=generator, dtype=torch.float64)
    finite = negative.isfinite()
    total = (negative.double()[finite] * weight_n[finite]).sum() + (positive.double() * weight_p).sum()
    found = torch.autograd.grad(total, [q, z, offsets, temperature], allow_unused=True)
    return [negative, positive, *(torch.zeros(()) if g is None else g for g in found)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tile_bytes", [400, 4096, 2**26])
def test_equals_reference_in_float64(shape: tuple[int, int, int], tile_bytes: int) -> None:
    arguments = problem(shape, torch.float64)
    expected = gradients(*arguments, impl="reference")
    actual = gradients(*arguments, impl="torch", tile_bytes=tile_bytes)
    for left, right in zip(actual, expected, strict=True):
        torch.testing.assert_close(left, right.reshape(left.shape), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tile_bytes", [4096, 2**26])
def test_error_is_no_larger_than_that_of_plain_torch(dtype: torch.dtype, tile_bytes: int) -> None:
    """Each value and gradient is as near to float64 as dense torch code in the same dtype, plus a small term."""
    q, z, offsets, temperature, positives = problem((41, 401, 23), dtype, seed=3)
    exact = [t.detach().double().requires_grad_() for t in (q, z, offsets, temperature)]
    truth = gradients(*exact, positives, impl="reference")  # type: ignore[arg-type]
    actual = gradients(q, z, offsets, temperature, positives, tile_bytes=tile_bytes)

    mask = torch.zeros(41, 401, dtype=torch.bool)
    mask[positives.rows, positives.indices] = True
    scores = (q @ z.T / temperature + offsets).float()
    kept = ~mask.all(1)
    negative = torch.full((41,), -torch.inf)
    negative[kept] = scores.masked_fill(mask, -torch.inf)[kept].logsumexp(1)
    generator = torch.Generator().manual_seed(7)
    weight_n = torch.randn(41, generator=generator, dtype=torch.float64)
    weight_p = torch.randn(len(positives.indices), generator=generator, dtype=torch.float64)
    total = (negative.double()[kept] * weight_n[kept]).sum() + (scores[mask].double() * weight_p).sum()
    plain = [negative, scores[mask], *torch.autograd.grad(total, [q, z, offsets, temperature])]
    for value, other, exact_value in zip(actual, plain, truth, strict=True):
        finite = exact_value.isfinite()
        error = (value.double() - exact_value)[finite].abs().max()
        rounding = 4 * torch.finfo(torch.float32).eps * exact_value[finite].abs().max()
        allowed = (other.double() - exact_value)[finite].abs().max() + rounding
        assert error <= allowed


def test_gradcheck() -> None:
    q, z, offsets, temperature, positives = problem((6, 17, 3), torch.float64, seed=1)
    keep = torch.ones(6, dtype=torch.bool)
    keep[-1] = False  # all labels positive: N is -inf there

    def function(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        negative, positive = label_statistics(
            tensors[0], tensors[1], positives, tensors[3], label_offsets=tensors[2], tile_bytes=200
        )
        return negative[keep], positive

    assert torch.autograd.gradcheck(function, (q, z, offsets, temperature))


@pytest.mark.parametrize("size", [1e3, 1e-3])
def test_extreme_scores_stay_exact(size: float) -> None:
    arguments = problem((13, 129, 9), torch.float32, seed=2, size=size)
    exact = [t.detach().double().requires_grad_() for t in arguments[:4]]
    expected = gradients(*exact, arguments[4], impl="reference")  # type: ignore[arg-type]
    for tile_bytes in (512, 2**26):
        actual = gradients(*arguments, tile_bytes=tile_bytes)
        for left, right in zip(actual, expected, strict=True):
            assert not left.isnan().any()
            scale = right[right.isfinite()].abs().max().item()
            torch.testing.assert_close(
                left.double(), right.reshape(left.shape), rtol=1e-3, atol=1e-4 * max(scale, 1e-3)
            )


def test_a_dominant_positive_does_not_cancel() -> None:
    """The log-sum-exp over the negatives is exact even where a positive is larger by e^200."""
    q = torch.tensor([[1.0]])
    z = torch.tensor([[200.0], [0.5], [-0.5]])
    negative, positive = label_statistics(q, z, Positives.from_lists([[0]]))
    assert positive.tolist() == [200.0]
    torch.testing.assert_close(negative, torch.tensor([[0.5, -0.5]]).logsumexp(1))


def test_a_row_with_all_labels_positive_has_no_negatives() -> None:
    q = torch.randn(2, 4, requires_grad=True)
    z = torch.randn(3, 4, requires_grad=True)
    negative, positive = label_statistics(q, z, Positives.from_lists([[0, 1, 2], []]))
    assert negative[0] == -torch.inf
    (torch.nn.functional.softplus(negative[:1] - positive).sum()).backward()
    for gradient in (q.grad, z.grad):
        assert gradient is not None
        assert gradient.isfinite().all()


MEMORY = """
import resource, torch
from xmc.kernels.statistics import Positives, label_statistics
torch.manual_seed(0)
B, L, D = 2048, 100_000, 16
q, z = torch.randn(B, D, requires_grad=True), torch.randn(L, D, requires_grad=True)
positives = Positives.from_lists([[i] for i in range(B)])
def step(rows):
    n, p = label_statistics(q[:rows], z, Positives.from_lists([[i] for i in range(rows)]), 1.0, tile_bytes=2**22)
    (n.sum() - p.sum()).backward()
step(8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(B)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_scores_are_never_held() -> None:
    """2048 x 100,000 scores are 781 MiB in float32; forward and backward together grow by far less."""
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 100


def test_refuses_what_does_not_fit() -> None:
    q, z = torch.randn(2, 3), torch.randn(4, 3)
    one = Positives.from_lists([[0], [1]])
    with pytest.raises(InputError, match=r"same D"):
        label_statistics(q, torch.randn(4, 5), one)
    with pytest.raises(InputError, match=r"outside of the 4 labels"):
        label_statistics(q, z, Positives.from_lists([[0], [4]]))
    with pytest.raises(InputError, match=r"3 rows for 2 queries"):
        label_statistics(q, z, Positives.from_lists([[0], [1], [2]]))
    with pytest.raises(InputError, match=r"temperature must be one positive number"):
        label_statistics(q, z, one, 0.0)
    with pytest.raises(InputError, match=r"row 1 are not sorted and unique"):
        Positives(torch.tensor([0, 1, 3]), torch.tensor([2, 1, 1]))
    with pytest.raises(ConfigError, match=r"'cuda'; choose one of torch, reference"):
        label_statistics(q, z, one, impl="cuda")


def test_environment_variable_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    q, z, one = torch.randn(2, 3), torch.randn(4, 3), Positives.from_lists([[0], [1]])
    monkeypatch.setenv("XMC_KERNELS", "reference")
    assert label_statistics(q, z, one)[0].dtype == torch.float64
    assert label_statistics(q, z, one, impl="torch")[0].dtype == torch.float32
    monkeypatch.setenv("XMC_KERNELS", "numpy")
    with pytest.raises(ConfigError, match="XMC_KERNELS"):
        label_statistics(q, z, one)


def test_positives_from_lists_sorts_and_keeps_the_first_of_duplicates() -> None:
    positives = Positives.from_lists([[5, 2, 5], [], [0]], weights=[[0.5, 1.0, 9.0], [], [2.0]])
    assert positives.indptr.tolist() == [0, 2, 2, 3]
    assert positives.indices.tolist() == [2, 5, 0]
    assert positives.weights is not None
    assert positives.weights.tolist() == [1.0, 0.5, 2.0]
