"""The streaming row statistics against the dense float64 reference: values, gradients, memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peak_memory import number_printed
from random_kernel_inputs import (
    CPU_ENGINES,
    ENGINES,
    assert_no_worse,
    dense,
    evaluate,
    needs_triton,
    problem,
)
from scipy.sparse import csr_matrix

from xmc.errors import ConfigError, InputError
from xmc.kernels import dispatch
from xmc.kernels.entries import Entries
from xmc.kernels.statistics import Positives, label_statistics, sigmoid_statistics, softplus_sum

Engine = tuple[str, str]


@pytest.mark.parametrize("engine", ENGINES)
def test_low_temperature(engine: Engine) -> None:
    impl, device = engine
    one = problem((13, 129, 9), seed=5)
    one.tensors[2] = torch.tensor(0.01, dtype=torch.float64, requires_grad=True)
    one = one.to(torch.float32, device)
    truth = evaluate("log_sum_exp", one.to(torch.float64, device), impl="reference")
    assert_no_worse(evaluate("log_sum_exp", one, impl=impl), dense("log_sum_exp", one), truth, slack=16)


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_layout_does_not_matter(engine: Engine) -> None:
    """Transposed, strided and sliced tensors give what their contiguous copies give."""
    impl, device = engine
    one = problem((13, 129, 10), seed=6).to(torch.float32, device)
    expected = evaluate("log_sum_exp", one, impl=impl)
    queries, labels, temperature, bias, shift = (t.detach() for t in one.tensors)
    wide = torch.zeros(26, 25, device=device)
    wide[::2, 1:21:2] = queries
    strange = [wide[::2, 1:21:2], labels.T.contiguous().T, temperature, torch.stack([bias, bias], 1)[:, 0], shift]
    assert not any(strange[i].is_contiguous() for i in (0, 1, 3))
    one.tensors = [t.requires_grad_() for t in strange]
    for left, right in zip(evaluate("log_sum_exp", one, impl=impl), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


def test_a_second_derivative_is_refused() -> None:
    """Better an error than the silent zero that a saved result would give."""
    one = problem((3, 7, 4))
    negative, _ = label_statistics(*one.tensors[:2], one.positives)
    (first,) = torch.autograd.grad(negative[1] ** 2, one.tensors[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_dominant_positive_does_not_cancel(engine: Engine) -> None:
    """The log-sum-exp over the negatives is exact even where a positive is larger by e^200."""
    impl, device = engine
    q = torch.tensor([[1.0]], device=device)
    z = torch.tensor([[200.0], [0.5], [-0.5]], device=device)
    negative, positive = label_statistics(q, z, Positives.from_lists([[0]]).to(device), impl=impl)
    assert positive.tolist() == [200.0]
    torch.testing.assert_close(negative.cpu(), torch.tensor([[0.5, -0.5]]).logsumexp(1))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_row_with_all_labels_positive_has_no_negatives(engine: Engine) -> None:
    impl, device = engine
    q = torch.randn(2, 4, device=device, requires_grad=True)
    z = torch.randn(3, 4, device=device, requires_grad=True)
    negative, positive = label_statistics(q, z, Positives.from_lists([[0, 1, 2], []]).to(device), impl=impl)
    assert negative[0] == -torch.inf
    (torch.nn.functional.softplus(negative[:1] - positive).sum()).backward()
    for gradient in (q.grad, z.grad):
        assert gradient is not None
        assert gradient.isfinite().all()


@pytest.mark.parametrize("impl", CPU_ENGINES)
def test_shards_of_queries_and_of_labels_combine(impl: str) -> None:
    """Row statistics of two halves of the labels combine with a log-sum-exp or a sum; halves of the queries stack."""
    one = problem((12, 130, 8), seed=9, exclude=False).to(torch.float32)
    queries, labels = (t.detach() for t in one.tensors[:2])
    lists = [chunk.tolist() for chunk in one.positives.indices.split(one.positives.counts.tolist())]
    negative, positive = label_statistics(queries, labels, one.positives, 0.5, impl=impl)

    first, second = (
        label_statistics(
            queries,
            labels[left:right],
            Positives.from_lists([[p - left for p in row if left <= p < right] for row in lists]),
            0.5,
            impl=impl,
        )
        for left, right in ((0, 61), (61, 130))
    )
    torch.testing.assert_close(torch.logaddexp(first[0], second[0]), negative)
    torch.testing.assert_close(torch.cat([first[1], second[1]]).sort().values, positive.sort().values)

    rows = [
        label_statistics(queries[part], labels, Positives.from_lists(lists[part]), 0.5, impl=impl)
        for part in (slice(0, 5), slice(5, 12))
    ]
    torch.testing.assert_close(torch.cat([rows[0][0], rows[1][0]]), negative)
    torch.testing.assert_close(torch.cat([rows[0][1], rows[1][1]]), positive)

    shift = torch.randn(12)
    whole = sigmoid_statistics(queries, labels, shift, 2.0, impl=impl)
    halves = [sigmoid_statistics(queries, part, shift, 2.0, impl=impl) for part in (labels[:61], labels[61:])]
    for number in (0, 1):
        torch.testing.assert_close(halves[0][number] + halves[1][number], whole[number])
    sums = [softplus_sum(queries, part, impl=impl) for part in (labels, labels[:61], labels[61:])]
    torch.testing.assert_close(sums[1] + sums[2], sums[0])


def test_log_inclusion_counts_negatives_for_more_and_positives_as_they_are() -> None:
    q, z = torch.randn(2, 3), torch.randn(4, 3)
    log_inclusion = torch.tensor([0.5, 0.25, 1.0, 0.1]).log()
    negative, positive = label_statistics(q, z, Positives.from_lists([[1], []]), log_inclusion=log_inclusion)
    scores = q @ z.T
    expected = (scores - log_inclusion).exp()
    torch.testing.assert_close(negative.exp(), torch.stack([expected[0, [0, 2, 3]].sum(), expected[1].sum()]))
    torch.testing.assert_close(positive, scores[0, 1:2])


MEMORY = """
import torch
from xmc.kernels.statistics import Positives, label_statistics
torch.manual_seed(0)
B, L, D = 2048, 100_000, 16
q, z = torch.randn(B, D, requires_grad=True), torch.randn(L, D, requires_grad=True)
positives = Positives.from_lists([[i] for i in range(B)])
def step(rows):
    n, p = label_statistics(q[:rows], z, Positives.from_lists([[i] for i in range(rows)]), 1.0, tile_bytes=2**22)
    (n.sum() - p.sum()).backward()
step(8)
before = peak()
step(B)
print(peak() - before)
"""


def test_peak_memory() -> None:
    """2048 x 100,000 scores are 781 MiB in float32; forward and backward together grow by far less."""
    assert number_printed(MEMORY) < 100


def test_refuses_what_does_not_fit() -> None:
    q, z = torch.randn(2, 3), torch.randn(4, 3)
    one = Positives.from_lists([[0], [1]])
    with pytest.raises(InputError, match=r"same D"):
        label_statistics(q, torch.randn(4, 5), one)
    with pytest.raises(InputError, match=r"one floating dtype, not torch.float32 and torch.float16"):
        label_statistics(q, z.half(), one)
    with pytest.raises(InputError, match=r"one floating dtype, not torch.int64"):
        label_statistics(q.long(), z.long(), one)
    with pytest.raises(InputError, match=r"positives.indices range from 0 to 4, outside of the 4 labels"):
        label_statistics(q, z, Positives.from_lists([[0], [4]]))
    with pytest.raises(InputError, match=r"exclude.indices range from 9 to 9, outside of the 4 labels"):
        label_statistics(q, z, one, exclude=Positives.from_lists([[], [9]]))
    with pytest.raises(InputError, match=r"3 rows for 2 queries"):
        label_statistics(q, z, Positives.from_lists([[0], [1], [2]]))
    with pytest.raises(InputError, match=r"bias must have shape \(4,\), not \(3,\)"):
        label_statistics(q, z, one, label_bias=torch.zeros(3))
    with pytest.raises(InputError, match=r"shift must have shape \(2,\), not \(4,\)"):
        sigmoid_statistics(q, z, torch.zeros(4))
    for temperature in (0.0, -1.0, torch.nan, torch.inf, torch.ones(2)):
        with pytest.raises(InputError, match=r"temperature must be one positive number"):
            label_statistics(q, z, one, temperature)
    with pytest.raises(ConfigError, match=r"'cuda'; choose one of triton, torch, reference"):
        label_statistics(q, z, one, impl="cuda")


@pytest.mark.parametrize("impl", [*CPU_ENGINES, "reference"])
@pytest.mark.parametrize("where", ["queries", "labels", "bias"])
def test_refuses_nan(impl: str, where: str) -> None:
    tensors = {"queries": torch.randn(2, 3), "labels": torch.randn(4, 3), "bias": torch.randn(4)}
    tensors[where].view(-1)[2] = torch.nan
    with pytest.raises(InputError, match="hold NaN"):
        label_statistics(
            tensors["queries"],
            tensors["labels"],
            Positives.from_lists([[2], [2]]),
            label_bias=tensors["bias"],
            impl=impl,
        )


@pytest.mark.parametrize(
    ("indptr", "indices", "weights", "message"),
    [
        ([0, 1, 3], [2, 1, 1], None, "row 1 are not sorted and unique"),
        ([0, 1, 3], [2, 3, 1], None, "row 1 are not sorted and unique"),
        ([0, 2, 1], [2], None, "must not decrease"),
        ([1, 2, 3], [2, 1, 2], None, "starts at 0"),
        ([0, 1, 2], [2], None, r"indptr\[-1\] = 2 entries"),
        ([0, 1, 2], [2.0, 1.0], None, "must be int32 or int64"),
        ([0, 1, 2], [2, 1], [1.0], "one entry for each index"),
        ([0, 1, 2], [2, 1], [1.0, -1.0], "must not be negative or NaN"),
        ([0, 1, 2], [2, 1], [1.0, torch.nan], "must not be negative or NaN"),
    ],
)
def test_refuses_malformed_positives(
    indptr: list[int], indices: list[float], weights: list[float] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Positives(torch.tensor(indptr), torch.tensor(indices), None if weights is None else torch.tensor(weights))


def test_environment_variable_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    q, z, one = torch.randn(2, 3), torch.randn(4, 3), Positives.from_lists([[0], [1]])
    monkeypatch.setenv("XMC_KERNELS", "reference")
    assert label_statistics(q, z, one)[0].dtype == torch.float64
    assert label_statistics(q, z, one, impl="torch")[0].dtype == torch.float32
    monkeypatch.setenv("XMC_KERNELS", "numpy")
    with pytest.raises(ConfigError, match="XMC_KERNELS"):
        label_statistics(q, z, one)


@needs_triton
def test_triton_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    q, z, one = torch.randn(2, 3), torch.randn(4, 3), Positives.from_lists([[0], [1]])
    with pytest.raises(ConfigError, match="impl asks for the kernel backend 'triton', but it computes in float32"):
        label_statistics(q.double(), z.double(), one, impl="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setenv("XMC_KERNELS", "triton")
    with pytest.raises(ConfigError, match=r"XMC_KERNELS asks for .* 'triton', but the tensors are on cpu"):
        label_statistics(q, z, one)


def test_positives_from_lists_sorts_and_keeps_the_first_of_duplicates() -> None:
    positives = Positives.from_lists([[5, 2, 5], [], [0]], weights=[[0.5, 1.0, 9.0], [], [2.0]])
    assert positives.indptr.tolist() == [0, 2, 2, 3]
    assert positives.indices.tolist() == [2, 5, 0]
    assert positives.weights is not None
    assert positives.weights.tolist() == [1.0, 0.5, 2.0]


@pytest.mark.parametrize("weighted", [False, True])
def test_positives_from_scipy_are_the_pairs_of_a_value_above_zero(weighted: bool) -> None:
    """A stored 0, a negative value, and duplicates that sum up to 0 are no positives; a row may be left with none."""
    rows, columns = [0, 0, 0, 1, 2, 2, 2], [4, 1, 2, 3, 0, 0, 5]
    values = np.array([0.5, 0.0, 2.0, -1.0, 1.0, -1.0, 0.25])
    matrix = csr_matrix((values, (rows, columns)), shape=(4, 6))
    before = matrix.copy()
    positives = Positives.from_scipy(matrix, weighted=weighted)
    assert positives.indptr.tolist() == [0, 2, 2, 3, 3]
    assert positives.indices.tolist() == [2, 4, 5]
    assert (positives.weights is not None) == weighted
    if positives.weights is not None:
        assert positives.weights.dtype == torch.float64
        assert positives.weights.tolist() == [2.0, 0.5, 0.25]
    assert matrix.nnz == before.nnz
    assert not (matrix != before).nnz


def test_positives_from_scipy_take_any_kind_of_value() -> None:
    """Booleans, and matrices without entries or rows."""
    marked = csr_matrix(np.array([[True, False], [False, True]]))
    assert Positives.from_scipy(marked).indices.tolist() == [0, 1]
    for shape in ((0, 5), (3, 0)):
        positives = Positives.from_scipy(csr_matrix(shape, dtype=np.float32), weighted=True)
        assert len(positives) == shape[0]
        assert not len(positives.indices)


def test_positives_are_themselves_where_they_are_already_and_find_their_rows_once() -> None:
    positives = Positives.from_lists([[1, 4], [], [0]], [[1.0, 0.5], [], [2.0]])
    assert positives.to("cpu") is positives.to(torch.device("cpu")) is positives
    assert positives.rows is positives.rows
    assert positives.rows.tolist() == [0, 0, 2]
    entries = Entries.of(positives, Positives.from_lists([[2], [3], []]), 5)
    assert entries.rows is entries.rows
    assert entries.rows.tolist() == [0, 0, 0, 1, 2]


def test_a_loss_on_a_cpu_does_not_look_for_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XMC_KERNELS", raising=False)
    monkeypatch.setattr(dispatch, "find_spec", lambda name: pytest.fail(f"looked for {name}"))
    assert dispatch.choose_backend(None, torch.zeros(2)) == "torch"
