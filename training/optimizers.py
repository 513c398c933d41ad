"""Optimizers that cost what a step touches: Adam on rows of tables, AdamW for whatever is dense."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmc.config import TrainConfig
from xmc.encoders.dual import DualEncoder
from xmc.encoders.feature_table import transpose, weight_gradients
from xmc.encoders.static import FeatureTable
from xmc.training.row_kernels import adam_factored_rows, adam_rows

__all__ = ["FeatureTableAdam", "Optimizers", "RowAdam"]

BETAS = (0.9, 0.99)


class RowAdam:
    """Adam (Kingma and Ba 2015) on the rows of a matrix [R, D] that have a gradient; other rows and moments stay still.

    The bias corrections follow the number of steps, as in torch.optim.SparseAdam.
    """

    def __init__(self, parameter: Tensor, betas: tuple[float, float] = BETAS) -> None:
        self.parameter = parameter.detach()
        self.first, self.second = torch.zeros_like(self.parameter), torch.zeros_like(self.parameter)
        self.betas = betas
        self.steps = 0

    def step(self, rows: Tensor, gradients: Tensor, learning_rate: float) -> None:
        """Update the unique `rows` (int64 [n]) with `gradients` [n, D], all on the parameter's device."""
        rate, root = self.advance(learning_rate)
        if self.parameter.device.type == "cpu":
            adam_rows(*self.arrays(), rows.numpy(), gradients.numpy(), rate, *self.betas, root)
        else:
            self.update(rows, gradients, rate, root)

    def update(self, rows: Tensor, gradients: Tensor, rate: float, root: float) -> None:
        """What `adam_rows` does, in torch, for a parameter that is not on the CPU."""
        first = self.first[rows].lerp_(gradients, 1 - self.betas[0])
        second = self.second[rows].mul_(self.betas[1]).addcmul_(gradients, gradients, value=1 - self.betas[1])
        self.first[rows], self.second[rows] = first, second
        self.parameter[rows] -= rate * first / (second.sqrt() / root + 1e-8)

    def advance(self, learning_rate: float) -> tuple[float, float]:
        """Count a step; return the bias-corrected rate and the root of the second moment's correction."""
        self.steps += 1
        return learning_rate / (1 - self.betas[0] ** self.steps), (1 - self.betas[1] ** self.steps) ** 0.5

    def arrays(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Parameter, first and second moment as numpy views."""
        return self.parameter.numpy(), self.first.numpy(), self.second.numpy()


class FeatureTableAdam:
    """Adam on a feature table's touched rows and feature weights, from the factors its backward passes left."""

    def __init__(self, table: FeatureTable) -> None:
        self.table = table
        self.vectors = RowAdam(table.vectors)
        self.weights = RowAdam(table.log_weights[:, None])

    def step(self, learning_rate: float, weight_learning_rate: float) -> None:
        """Use up `table.pending`: the gradient of every touched row, over all backward passes since the last step."""
        if not self.table.pending:
            return
        parts = [bags for bags, _ in self.table.pending]
        gradients = tuple(gradient.numpy() for _, gradient in self.table.pending)
        self.table.pending.clear()
        entries = transpose(parts, len(self.table.vectors))
        first_bags = np.cumsum([0, *(len(bags.offsets) - 1 for bags in parts)])
        first_features = np.cumsum([0, *(len(bags.rows) for bags in parts)])
        alignments = np.zeros(first_features[-1], np.float32)
        rate, root = self.vectors.advance(learning_rate)
        adam_factored_rows(
            *self.vectors.arrays(),
            entries.touched,
            entries.starts,
            entries.bags,
            entries.features,
            tuple(bags.coefficients for bags in parts),
            gradients,
            first_bags,
            first_features,
            alignments,
            rate,
            *self.vectors.betas,
            root,
        )
        del entries, gradients
        totals = np.zeros(len(self.table.log_weights))
        for bags, first in zip(parts, first_features[:-1], strict=True):
            weight_gradients(bags.values, bags.coefficients, alignments[first:], totals)
        slots = np.flatnonzero(totals)
        self.weights.step(
            torch.from_numpy(slots), torch.from_numpy(totals[slots, None].astype(np.float32)), weight_learning_rate
        )


class Optimizers:
    """Every parameter of a dual encoder with the optimizer it needs, driven by one learning-rate schedule."""

    def __init__(self, model: DualEncoder, config: TrainConfig) -> None:
        self.config = config
        self.model = model
        modules = list(model.modules())
        self.tables = [FeatureTableAdam(module) for module in modules if isinstance(module, FeatureTable)]
        self.vectors = None if model.label_vectors is None else RowAdam(model.label_vectors)
        own = {id(p) for module in modules if isinstance(module, FeatureTable) for p in module.parameters()}
        own.add(id(model.label_vectors))
        dense = [p for p in model.parameters() if id(p) not in own and p.requires_grad]
        decayed = [p for p in dense if p.dim() > 1]
        plain = [p for p in dense if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.dense = torch.optim.AdamW([group for group in groups if group["params"]]) if dense else None

    def step(self, factor: float) -> None:
        """Update all parameters at `factor` (in [0, 1], the schedule) of the configured rates, and clear gradients."""
        rate = factor * self.config.encoder_learning_rate
        for table in self.tables:
            table.step(rate, factor * self.config.weight_learning_rate)
        vectors = self.model.label_vectors
        if self.vectors is not None and vectors is not None and vectors.grad is not None:
            rows, values = _sparse_rows(vectors.grad)
            self.vectors.step(rows, values, factor * self.config.label_vector_learning_rate)
            vectors.grad = None
        if self.dense is not None:
            for group in self.dense.param_groups:
                group["lr"] = rate
            self.dense.step()
            self.dense.zero_grad(set_to_none=True)


def _sparse_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Unique rows and their gradients; one pass over unique rows is taken as it is, without a sort or a copy."""
    if not gradient.is_coalesced() and len(gradient._indices()[0].unique()) < gradient._nnz():
        gradient = gradient.coalesce()
    return gradient._indices()[0], gradient._values()
