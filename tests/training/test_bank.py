"""The bank: all labels in every softmax, of which a step encodes some."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from step_labels import (
    FILTERED,
    NOTHING,
    banked,
    begun,
    known_pairs,
    matrix,
    world,
)
from worlds import tiny_config

from xmc.kernels.losses import decoupled_softmax
from xmc.training.negatives import JoinedNegatives
from xmc.training.negatives.bank import BankedLabels
from xmc.training.negatives.label_bank import LabelBank


def test_bank_encodes_positives_hard_ones_and_a_rotation() -> None:
    config = tiny_config(negatives="bank", **{"negatives.bank.hard": 1, "negatives.bank.refresh": 3})
    known = known_pairs(config, FILTERED)
    source = banked(config)
    seen = set()
    for step in range(3):
        queries = source.bank.embeddings[[6]]  # the label 6 scores highest
        candidates = JoinedNegatives([source], 8).labels_of(known.batch(step, np.array([1])), queries)
        assert candidates.rows.tolist() == list(range(8))
        assert {1, 6} <= set(candidates.fresh.tolist())
        assert candidates.fresh.tolist() == sorted(set(candidates.fresh.tolist()))
        seen |= set(candidates.fresh.tolist())
    assert seen == set(range(8))
    few = banked(
        tiny_config(
            negatives="bank", **{"negatives.bank.refresh": 0, "negatives.bank.hard": 0, "negatives.bank.positives": 0.5}
        )
    )
    assert len(few.encoded(known.batch(0, np.array([0, 2])), NOTHING)[0]) == 2


def test_bank_has_the_loss_of_all_labels_and_its_gradient_where_it_encodes() -> None:
    """Just after the bank is filled, only what is constant differs."""
    found = {}
    for negatives in ("all", "bank"):
        config, model, data = world(
            negatives={"kind": "bank", "hard": 2, "refresh": 2} if negatives == "bank" else negatives,
            label_vectors="none",
        )
        run, step = begun(config, model, data)
        batch = data.known.batch(0, np.arange(6))
        found[negatives] = step(batch, step.dropped_queries(batch))
        source = run.find(BankedLabels)
        assert (source is not None) == (negatives == "bank")
        if source is not None:
            report = source.after_step(run, batch, found[negatives])["bank"]
            assert report["age"] == 0
            assert report["drift"] < 1e-6
    assert found["bank"].loss == pytest.approx(found["all"].loss, rel=1e-6)
    assert found["bank"].tokens < found["all"].tokens


def test_bank_gradients_are_those_of_all_labels_for_fresh_ones_and_none_for_others() -> None:
    torch.manual_seed(0)
    cached = torch.nn.functional.normalize(torch.randn(10, 4, dtype=torch.float64), dim=1)
    queries = torch.nn.functional.normalize(torch.randn(5, 4, dtype=torch.float64), dim=1)
    positives = matrix([[i] for i in range(5)], 10)
    from xmc.kernels.losses import Positives

    rows = torch.tensor([0, 1, 2, 3, 4, 8])
    fresh = torch.nn.functional.normalize(torch.randn(6, 4, dtype=torch.float64), dim=1).requires_grad_()
    bank = LabelBank(10, 4)
    bank.embeddings = cached.clone()
    merged, report = bank.renew(rows, fresh, step=3)
    loss = decoupled_softmax(queries, merged, Positives.from_scipy(positives))
    loss.backward()
    whole = cached.clone()
    whole[rows] = fresh.detach()
    whole.requires_grad_()
    expected = decoupled_softmax(queries, whole, Positives.from_scipy(positives))
    expected.backward()
    assert torch.equal(loss, expected)
    assert whole.grad is not None
    assert torch.equal(fresh.grad, whole.grad[rows])
    cosines = (cached[rows] * fresh.detach()).sum(1)
    assert report.drift == pytest.approx(float((1 - cosines).mean()), rel=1e-5)
    assert report.span == 3
    assert report.age == pytest.approx(4 * 3 / 10)
    assert torch.equal(bank.embeddings, whole.detach())


def test_unbiased_bank_has_the_gradient_of_all_labels_in_the_mean() -> None:
    """Over all turns of the rotation, the gradient of the label texts is that of `all`, the model standing still."""
    totals = {}
    for negatives in ("all", "bank"):
        section = {"kind": "bank", "hard": 0, "refresh": 4, "positives": 0.0, "unbiased": True}
        config, model, data = world(negatives=section if negatives == "bank" else negatives, label_vectors="none")
        total = 0.0
        for turn in range(3):
            _, step = begun(config, model, data)
            batch = data.known.batch(turn, np.arange(6))
            step(batch, step.dropped_queries(batch))
            pending = model.label_encoder.table.pending
            (gradients,) = [gradient for _, gradient in pending if len(gradient) != 6]  # the other is the six queries'
            by_rows = torch.zeros(12, model.dimension)
            by_rows[step.negatives.labels_of(batch, NOTHING).fresh] = gradients
            total = total + by_rows / 3
            pending.clear()
        totals[negatives] = total
    torch.testing.assert_close(totals["bank"], totals["all"], rtol=1e-4, atol=1e-7)
