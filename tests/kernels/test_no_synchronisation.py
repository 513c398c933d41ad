"""No loss asks a tensor on a device for its value, which would wait for all that the device has yet to do.

The meta device has no values: what asks for one there, or for a size that depends on values, is an error. So whole losses run
on it, forward and backward, with kernels that are not launched. On a GPU they are captured in a CUDA graph.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from random_kernel_inputs import needs_triton, random_positives
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import xmc.kernels
from xmc.kernels.losses import LOSSES, Positives, prototype_regularisation
from xmc.kernels.losses.loss import argument_names
from xmc.kernels.statistics import sigmoid_statistics, softplus_sum

QUERIES, LABELS, DIMENSION = 9, 83, 16
NAMES = [*LOSSES, "prototype_regularisation"]


class NothingTravels(TorchDispatchMode):
    """Refuses operations that read or write across devices, and those to which a Python number is sent as a tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        # A number beside tensors is a CPU tensor [] that goes with the launch.
        devices = {tensor.device.type for tensor in tensors if tensor.device.type != "cpu" or tensor.dim()}
        assert len(devices) < 2, f"{func} reads or writes across devices: {[tuple(t.shape) for t in tensors]}"
        if "index_put" in str(func):
            # x[rows] = 0.0 on a GPU copies the number there and waits; x.index_put((rows,), zeros) does not.
            assert args[2].dim(), f"{func} is given a number"
        return result


@pytest.fixture
def unlaunched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton's kernels are called and not run."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    monkeypatch.setattr(interpreter.InterpretedFunction, "run", lambda *args, **options: None)
    with NothingTravels():
        yield


def loss_of(
    name: str, tensors: list[Tensor], positives: Positives, exclude: Positives | None, **options: Any
) -> Tensor:
    """With every option that it takes."""
    queries, labels, temperature, bias, logarithms, propensities = tensors
    if name == "prototype_regularisation":
        return prototype_regularisation(queries, labels, labels * 1.5, positives, exclude=exclude, **options)
    given = {"label_bias": bias, "log_inclusion": logarithms, "propensities": propensities}
    options |= {option: value for option, value in given.items() if option in argument_names(LOSSES[name].function)}
    return LOSSES[name](queries, labels, positives, temperature, exclude=exclude, **options)


def inputs(
    device: str, dtype: torch.dtype = torch.float32, pushed: bool = False
) -> tuple[list[Tensor], Positives, Positives]:
    """Queries, labels, temperature, bias, log_inclusion and propensities, then positives with weights, and excluded pairs.

    pushed: whether the positives have pushes too.
    """
    generator = torch.Generator().manual_seed(0)
    queries, labels = (normalize(torch.randn(n, DIMENSION, generator=generator)) for n in (QUERIES, LABELS))
    bias, inclusion, propensities = (torch.rand(LABELS, generator=generator) * 0.5 + 0.5 for _ in range(3))
    tensors = [queries.to(dtype), labels.to(dtype), torch.tensor(0.1), bias, inclusion.log(), propensities]
    positives = random_positives(QUERIES, LABELS, seed=1)
    weights, push = (torch.rand(len(positives.indices), generator=generator) for _ in range(2))
    weighted = Positives(positives.indptr, positives.indices, weights, push if pushed else None).to(device)
    exclude = random_positives(QUERIES, LABELS, seed=2, full=False).to(device)
    moved = [tensor.to(device).requires_grad_(number < 4) for number, tensor in enumerate(tensors)]
    return moved, weighted, exclude


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("excluded", "pushed"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_asks_no_tensor_for_its_value(
    name: str, excluded: bool, pushed: bool, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    tensors, positives, exclude = inputs("meta", dtype, pushed)
    request.getfixturevalue("unlaunched")
    loss = loss_of(name, tensors, positives, exclude if excluded else None, impl="triton")
    loss.backward()
    assert loss.device.type == "meta"
    assert all(tensor.grad is not None for tensor in tensors[:2])


@needs_triton
def test_a_number_as_temperature_stays_where_it_is(request: pytest.FixtureRequest) -> None:
    (queries, labels, *_), positives, _ = inputs("meta")
    request.getfixturevalue("unlaunched")
    LOSSES["decoupled_softmax"](queries, labels, positives, 0.05, impl="triton").backward()
    sums = [
        softplus_sum(queries, labels, temperature=0.05, impl="triton"),
        *sigmoid_statistics(queries, labels, queries[:, 0].detach(), temperature=0.05, impl="triton"),
    ]
    assert [one.shape for one in sums] == [(QUERIES,)] * 3


NO_ITEM = (RuntimeError, r"Tensor.item\(\) cannot be called on meta tensors")
NO_DATA = (NotImplementedError, "Cannot copy out of meta tensor; no data")
NO_NONZERO = (NotImplementedError, "torch.nonzero")


@needs_triton
@pytest.mark.parametrize(
    ("asks", "refused"),
    [
        pytest.param(lambda x: x.sum().item(), NO_ITEM, id="item"),
        pytest.param(lambda x: bool((x > 0).all()), NO_ITEM, id="bool"),
        pytest.param(lambda x: x.tolist(), NO_DATA, id="tolist"),
        pytest.param(lambda x: x.cpu(), NO_DATA, id="cpu"),
        pytest.param(lambda x: x[x > 0], NO_NONZERO, id="boolean index"),
        pytest.param(lambda x: x.nonzero(), NO_NONZERO, id="nonzero"),
        pytest.param(lambda x: x.masked_select(x > 0), (NotImplementedError, "masked_select"), id="masked_select"),
        pytest.param(lambda x: x.unique(), (NotImplementedError, "_unique2"), id="unique"),
        pytest.param(
            lambda x: x.long().repeat_interleave(x.long()),
            (RuntimeError, "cannot repeat_interleave a meta tensor without output_size"),
            id="repeat_interleave",
        ),
        pytest.param(
            lambda x: torch.zeros(4).to(x.device),
            (AssertionError, "_to_copy.default reads or writes across devices"),
            id="to the device",
        ),
        pytest.param(
            lambda x: x.index_put_((x.long(),), torch.zeros((), device=x.device)),
            (AssertionError, "index_put_.default is given a number"),
            id="a number",
        ),
    ],
)
def test_what_asks_is_noticed(asks: Any, refused: tuple[type[Exception], str], request: pytest.FixtureRequest) -> None:
    """The check sees what it looks for, and refuses it for that reason."""
    values = torch.zeros(4, device="meta")
    request.getfixturevalue("unlaunched")
    with pytest.raises(refused[0], match=refused[1]):
        asks(values)


def test_no_number_is_made_a_tensor_on_a_device() -> None:
    """`torch.tensor(number, device=...)` copies it there and waits; `torch.full` fills it in there."""
    folder = Path(xmc.kernels.__path__[0])
    found = [
        f"{path.relative_to(folder)}:{call.lineno}"
        for path in folder.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and getattr(call.func, "attr", "") in ("tensor", "as_tensor", "new_tensor")
        and (
            any(keyword.arg == "device" for keyword in call.keywords) or getattr(call.func, "attr", "") == "new_tensor"
        )
    ]
    assert not found, f"write torch.full instead: {found}"


@pytest.mark.cuda
@pytest.mark.parametrize(("excluded", "pushed"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("name", NAMES)
def test_a_captured_loss_is_the_loss(name: str, excluded: bool, pushed: bool) -> None:
    """A replay on new inputs is what a call on them is, up to the order in which torch adds up on a GPU."""
    tensors, positives, exclude = inputs("cuda", pushed=pushed)

    def step() -> list[Tensor]:
        loss = loss_of(name, tensors, positives, exclude if excluded else None)
        return [loss, *torch.autograd.grad(loss, tensors[:2])]

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # compiles kernels, and finds what positives keep
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for tensor in tensors[:2]:
            tensor.copy_(normalize(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(7))))
    graph.replay()
    for actual, expected in zip(captured, step(), strict=True):
        allowed = 64 * torch.finfo(torch.float32).eps * float(expected.abs().max())
        assert float((actual - expected).abs().max()) <= allowed


@pytest.mark.cuda
@pytest.mark.parametrize("temperature", [0.0, -0.1, torch.nan, torch.inf])
def test_a_temperature_on_a_gpu_that_is_no_positive_number_makes_the_loss_nan(temperature: float) -> None:
    (queries, labels, *_), positives, _ = inputs("cuda")
    loss = LOSSES["decoupled_softmax"](queries, labels, positives, torch.full((), temperature, device="cuda"))
    assert loss.isnan()


@pytest.mark.cuda
@pytest.mark.parametrize("pushed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_nan_on_a_gpu_makes_the_loss_nan(name: str, pushed: bool) -> None:
    tensors, positives, _ = inputs("cuda", pushed=pushed)
    with torch.no_grad():
        tensors[1][3] = torch.nan
    assert loss_of(name, tensors, positives, None).isnan()
