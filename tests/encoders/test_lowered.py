"""The working copy of a backbone in bfloat16: it follows its masters, and its gradients are theirs, summed in float32."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import DECODERS, write_bert, write_decoder
from torch import Tensor, nn

from xmc.config import LoRAConfig
from xmc.encoders.transformer.adapters import add_adapters
from xmc.encoders.transformer.backbones import read_backbone
from xmc.encoders.transformer.layers import freeze_layers
from xmc.encoders.transformer.lowered import Lowered

IDS = torch.randint(5, 25, (7, 9), generator=torch.Generator().manual_seed(0))
WRITERS: dict[str, Callable[[Path], Path]] = {
    "bert": write_bert,
    **{family: lambda path, family=family: write_decoder(path, family) for family in DECODERS},  # type: ignore[misc]
}
ROUNDING = 32 * 2.0**-9
"""Two layers round some sixteen times in a row each, by 2^-9 of a number at most, if all of it added up."""


@pytest.fixture
def bert(tmp_path: Path) -> nn.Module:
    return read_backbone(write_bert(tmp_path), "float32").eval()


def states(module: Any, ids: Tensor = IDS) -> Tensor:
    hidden: Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return hidden.float()


def gradients(backbone: nn.Module, module: nn.Module, lowered: Lowered | None, parts: int = 1) -> dict[str, Tensor]:
    """Of a weighted sum of states, `parts` of the sequences at a time."""
    backbone.zero_grad()
    weights = torch.randn(len(IDS), IDS.shape[1], 16, generator=torch.Generator().manual_seed(1))
    for rows in torch.arange(len(IDS)).chunk(parts):
        (states(module, IDS[rows]) * weights[rows]).sum().backward()
    if lowered is not None:
        lowered.collect()
    return {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", WRITERS)
def test_states_and_gradients_are_those_of_float32_but_for_rounding(family: str, tmp_path: Path) -> None:
    backbone, lowered = read_backbone(WRITERS[family](tmp_path), "float32").eval(), Lowered()
    with torch.no_grad():  # weights of the size of a trained model's, which do not make roundings larger
        for parameter in backbone.parameters():
            parameter.mul_(0.3 if parameter.ndim == 2 else 1)
    module = lowered.module(backbone)
    assert module(input_ids=IDS).last_hidden_state.dtype == torch.bfloat16
    exact = states(backbone)
    assert (states(module) - exact).norm() < ROUNDING * exact.norm()
    expected, found = gradients(backbone, backbone, None), gradients(backbone, module, lowered)
    assert set(found) == set(expected)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    error = torch.cat([(found[name] - expected[name]).flatten() for name in expected]).norm()
    assert error < ROUNDING * torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    assert all(
        parameter.grad is None
        for parameter in lowered.module(backbone).parameters()
        if parameter.dtype != torch.float32
    )


def test_gradients_of_micro_batches_add_up_in_float32(bert: nn.Module) -> None:
    lowered = Lowered()
    module = lowered.module(bert)
    together = gradients(bert, module, lowered, parts=7)
    bert.zero_grad()
    total: dict[str, Tensor] = {}
    weights = torch.randn(len(IDS), IDS.shape[1], 16, generator=torch.Generator().manual_seed(1))
    for row in range(7):
        (states(module, IDS[row : row + 1]) * weights[row : row + 1]).sum().backward()
        lowered.collect()
        for name, parameter in bert.named_parameters():
            if parameter.grad is not None:
                total[name] = parameter.grad.clone() if row == 0 else total[name] + parameter.grad
        bert.zero_grad()
    for name, gradient in together.items():
        assert torch.equal(gradient, total[name]), name


def test_what_thousands_of_tokens_share_has_a_gradient_that_is_summed_in_float32(bert: nn.Module) -> None:
    """A sum of 4,096 equal numbers in bfloat16 ends at 256 of them."""
    lowered, ids, weights = Lowered(), torch.full((256, 16), 7), torch.arange(1.0, 17.0)
    (states(bert, ids) * weights).sum().backward()
    expected = bert.embeddings.token_type_embeddings.weight.grad.clone()  # type: ignore[union-attr,operator]
    bert.zero_grad()
    (states(lowered.module(bert), ids) * weights).sum().backward()
    lowered.collect()
    assert torch.equal(bert.encoder.layer[1].output.LayerNorm.bias.grad, 4096 * weights)  # type: ignore[union-attr,index]
    found: Tensor = bert.embeddings.token_type_embeddings.weight.grad  # type: ignore[union-attr,assignment]
    assert (found - expected).norm() < ROUNDING * expected.norm()


def test_it_holds_no_more_than_lowered_parameters_and_is_no_part_of_the_backbone(bert: nn.Module) -> None:
    names, module = set(bert.state_dict()), Lowered().module(bert)
    assert set(bert.state_dict()) == names
    buffers = {id(buffer) for buffer in bert.buffers()}
    assert all(id(buffer) in buffers for buffer in module.buffers())
    masters = {id(parameter) for parameter in bert.parameters()}
    for name, parameter in module.named_parameters():
        if "embeddings" in name.split(".")[1] or "LayerNorm" in name:
            assert id(parameter) in masters, name
        else:
            assert parameter.dtype == torch.bfloat16, name
    table: Any = module.get_input_embeddings()  # type: ignore[operator]
    assert table.weight.dtype == torch.bfloat16


def test_it_follows_values_mode_and_what_is_learned(bert: nn.Module) -> None:
    lowered = Lowered()
    first = lowered.module(bert)
    assert lowered.module(bert) is first
    assert not first.training
    before = states(first)
    weight: nn.Parameter = bert.encoder.layer[0].output.dense.weight  # type: ignore[union-attr,index,assignment]
    with torch.no_grad():
        weight.mul_(2)
    assert lowered.module(bert) is first
    after = states(first)
    assert not torch.equal(before, after)
    weight.data = weight.data / 2
    assert torch.equal(states(lowered.module(bert)), before)
    bert.train()
    bert.encoder.layer[1].eval()  # type: ignore[union-attr,index]
    assert lowered.module(bert).training
    bert.eval()
    assert not any(part.training for part in lowered.module(bert).modules())
    freeze_layers(bert, 1)
    assert lowered.module(bert) is not first
    found = gradients(bert, lowered.module(bert), lowered)
    assert set(found) == {n for n, p in bert.named_parameters() if p.requires_grad and not n.startswith("pooler")}


def test_it_is_made_in_inference_mode_and_trained_after_it(bert: nn.Module) -> None:
    lowered = Lowered()
    with torch.inference_mode():
        states(lowered.module(bert))
    assert gradients(bert, lowered.module(bert), lowered)


def test_copies_make_their_own(bert: nn.Module) -> None:
    lowered = Lowered()
    module = lowered.module(bert)
    for other in (copy.deepcopy(lowered), copy.copy(lowered)):
        assert other.dtype == torch.bfloat16
        assert other.module(bert) is not module
    twin = copy.deepcopy(bert)
    assert torch.equal(states(lowered.module(twin)), states(module))
    lowered.forget()
    assert lowered.module(bert) is not module


def test_threads_compute_with_one_copy(bert: nn.Module) -> None:
    lowered = Lowered()
    with ThreadPoolExecutor(4) as pool:
        modules = list(pool.map(lambda _: lowered.module(bert), range(32)))
    assert len({id(module) for module in modules}) == 1


def test_parameters_that_have_the_type_already_are_shared(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    backbone, lowered = read_backbone(write_decoder(tmp_path), "bfloat16"), Lowered()
    add_adapters(backbone, LoRAConfig(rank=2))
    module = lowered.module(backbone)
    masters = {id(parameter) for parameter in backbone.parameters()}
    own = [name for name, parameter in module.named_parameters() if id(parameter) not in masters]
    assert own
    assert all("lora_" in name for name in own)
    found = gradients(backbone, module, lowered)
    assert found
    assert all("lora_" in name and gradient.dtype == torch.float32 for name, gradient in found.items())
