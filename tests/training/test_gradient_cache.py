"""Gradient caching: the gradients of the uncached step bit for bit, with dropout, shared towers, temperature, accumulation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_models import WORDS, write_bert
from torch import Tensor, nn

from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import DualEncoder
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.kernels.losses import Positives, decoupled_softmax
from xmc.training.gradient_cache import GradientCache
from xmc.training.micro_batches import StepEncoder

QUERIES = [" ".join(WORDS[i : i + 1 + i % 7]) for i in range(13)]
LABELS = [" ".join(WORDS[i : i + 1 + i % 3]) for i in range(17)]


def model(directory: Path, shared: bool) -> DualEncoder:
    """A BERT in float64 with dropout, four texts to a micro-batch, label vectors and a learned temperature."""
    towers = [TransformerEncoder.from_pretrained(directory, tokens_per_micro_batch=24) for _ in range(2 - shared)]
    built = DualEncoder(towers[0], towers[-1], labels=len(LABELS), temperature=0.1, learn_temperature=True).double()
    for module in built.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.3
    assert any(isinstance(module, nn.Dropout) for module in built.modules())
    return built.train()


def gradients(one: DualEncoder, step: StepEncoder, passes: int = 1) -> dict[str, Tensor]:
    """Of `passes` accumulated steps."""
    one.zero_grad()
    positives = Positives.from_lists([[i % 17, (3 * i + 1) % 17] for i in range(13)])
    for number in range(passes):
        torch.rand(number)  # whatever was drawn before does not matter
        step.begin(lambda micro_batch, number=number: 100 * number + micro_batch)
        queries = one.queries(one.query_encoder.featurize(QUERIES), step.encode)
        texts = one.label_texts(one.label_encoder.featurize(LABELS), step.encode)
        after = torch.rand(1)  # the random state goes on alike, for what is drawn before the loss
        labels = one.labels(texts, torch.arange(len(LABELS)))
        decoupled_softmax(queries, labels, positives, one.temperature).backward()
        step.backward()
    found = {name: parameter.grad for name, parameter in one.named_parameters() if parameter.grad is not None}
    dense = {name: grad.coalesce().to_dense() if grad.is_sparse else grad for name, grad in found.items()}
    return {**dense, "random state": after}


@pytest.mark.parametrize("shared", [True, False], ids=["shared towers", "two towers"])
@pytest.mark.parametrize("passes", [1, 3])
def test_gradients_equal_the_uncached_ones_bit_for_bit(shared: bool, passes: int, tmp_path: Path) -> None:
    one = model(write_bert(tmp_path), shared)
    expected, found = gradients(one, StepEncoder(), passes), gradients(one, GradientCache(), passes)
    assert set(found) == set(expected)
    assert {"label_vectors", "log_temperature"} <= set(found)
    for name, gradient in expected.items():
        assert gradient.isfinite().all()
        assert torch.equal(found[name], gradient), name
    assert sum(bool(gradient.abs().sum() > 0) for gradient in found.values()) > 20


def test_dropout_is_drawn_anew_in_each_micro_batch_and_replayed(tmp_path: Path) -> None:
    one = model(write_bert(tmp_path), shared=True)
    cache = GradientCache()
    features = one.query_encoder.featurize(["a boat with two hulls"] * 8)
    embeddings = cache.encode(one.query_encoder, features)
    assert len(embeddings.detach().unique(dim=0)) == 8
    seen: list[Tensor] = []
    one.query_encoder.register_forward_hook(lambda module, given, output: seen.append(output.detach()))
    embeddings.sum().backward()
    cache.backward()
    torch.testing.assert_close(torch.cat(seen[::-1]), embeddings.detach(), rtol=0, atol=0)


def test_embeddings_hold_no_graph_and_nothing_is_kept(tmp_path: Path) -> None:
    one = model(write_bert(tmp_path), shared=True)
    cache = GradientCache()
    features = one.query_encoder.featurize(QUERIES)
    assert cache.encode(one.query_encoder, features).is_leaf
    cache.backward()  # no gradient came: nothing to do, and forgotten
    assert all(parameter.grad is None for parameter in one.parameters())
    used = cache.encode(one.query_encoder, features)
    used.square().sum().backward()
    cache.backward()
    before = [parameter.grad.clone() for parameter in one.query_encoder.parameters() if parameter.grad is not None]
    assert before
    cache.backward()
    after = [parameter.grad for parameter in one.query_encoder.parameters() if parameter.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert cache.encode(one.query_encoder, features.take(torch.zeros(0, dtype=torch.int64).numpy())).shape == (0, 16)


def test_static_encoder_too() -> None:
    from xmc.config import StaticConfig
    from xmc.encoders.static.encoder import StaticEncoder

    encoder = StaticEncoder(StaticConfig(dimension=8, table_rows=64, weight_slots=64), torch.Generator().manual_seed(0))
    features: RaggedTokens = encoder.featurize(QUERIES)
    cache = GradientCache()
    embeddings = cache.encode(encoder, features)
    assert torch.equal(embeddings, encoder(features))
    embeddings.sum().backward()
    assert not encoder.table.pending
    cache.backward()
    assert len(encoder.table.pending) == 1


def test_micro_batches_differ_in_dropout_and_a_step_in_nothing_but_its_seeds(tmp_path: Path) -> None:
    one = model(write_bert(tmp_path), shared=True)
    features = one.query_encoder.featurize(["a boat with two hulls"] * 8)
    found = []
    for first in (5, 5, 6):
        step = StepEncoder()
        step.begin(lambda number, first=first: first + 10 * number)
        found.append(step.encode(one.query_encoder, features).detach())
        torch.rand(3)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert len(found[0].unique(dim=0)) == 8
