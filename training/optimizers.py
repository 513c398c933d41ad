"""Optimizers that cost what a step touches: Adam on rows of tables, AdamW for whatever is dense."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from xmc.config import TrainConfig
from xmc.encoders.dual import DualEncoder
from xmc.encoders.static.encoder import FeatureTable
from xmc.encoders.static.feature_table import transpose, weight_gradients
from xmc.training.checkpoints import Checkpoint
from xmc.training.moments import Moments
from xmc.training.row_kernels import adam_factored_rows, adam_rows
from xmc.training.sharding import load_tensor

__all__ = ["FeatureTableAdam", "Optimizers", "RowAdam"]

BETAS = (0.9, 0.99)
ROWS_AT_ONCE = 16_384


class RowAdam:
    """Adam (Kingma and Ba 2015) on the rows of a matrix [R, D] that have a gradient; other rows and moments stay still.

    The bias corrections follow the number of steps, as in torch.optim.SparseAdam.
    """

    def __init__(self, parameter: Tensor, betas: tuple[float, float] = BETAS, moments: str = "float32") -> None:
        """moments: how the two are stored, "float32", "bfloat16" or "int8" (see xmc.training.moments)."""
        self.parameter = parameter.detach()
        self.moments = Moments.of(moments, self.parameter)
        self.betas = betas
        self.steps = 0

    def step(self, rows: Tensor, gradients: Tensor, learning_rate: float) -> None:
        """Update the unique `rows` (int64 [n]) with `gradients` [n, D], all on the parameter's device."""
        rate, root = self.advance(learning_rate)
        if self.parameter.device.type == "cpu" and self.moments.kind == "float32":
            adam_rows(*self.arrays(), rows.numpy(), gradients.numpy(), rate, *self.betas, root)
            return
        for part in range(0, len(rows), ROWS_AT_ONCE):
            some = slice(part, part + ROWS_AT_ONCE)
            self.update(rows[some], gradients[some], rate, root)

    def update(self, rows: Tensor, gradients: Tensor, rate: float, root: float) -> None:
        """What `adam_rows` does, in torch, for a parameter that is not on the CPU, or moments that are not float32."""
        first, second = self.moments.read(rows)
        first.lerp_(gradients, 1 - self.betas[0])
        second.mul_(self.betas[1]).addcmul_(gradients, gradients, value=1 - self.betas[1])
        self.moments.write(rows, first, second)
        self.parameter[rows] -= rate * first / (second.sqrt() / root + 1e-8)

    def advance(self, learning_rate: float) -> tuple[float, float]:
        """Count a step; return the bias-corrected rate and the root of the second moment's correction."""
        self.steps += 1
        return learning_rate / (1 - self.betas[0] ** self.steps), (1 - self.betas[1] ** self.steps) ** 0.5

    def state(self, prefix: str) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return {
            f"{prefix}.steps": torch.tensor(self.steps),
            **{f"{prefix}.{name}": tensor for name, tensor in self.moments.tensors.items()},
        }

    def load_state(self, checkpoint: Checkpoint, prefix: str, rows: slice | None = None) -> None:
        """Take up what `state` gave, or some rows of it."""
        self.steps = int(checkpoint.tensor(f"{prefix}.steps"))
        for name, tensor in self.moments.tensors.items():
            tensor.copy_(checkpoint.tensor(f"{prefix}.{name}", rows))

    def arrays(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Parameter, first and second moment as numpy views, where the moments are float32."""
        first, second = self.moments.tensors.values()
        return self.parameter.numpy(), first.numpy(), second.numpy()


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
        vectors = model.label_vectors
        self.vectors = None if vectors is None else RowAdam(vectors, moments=config.label_vector_moments)
        own = {id(p) for module in modules if isinstance(module, FeatureTable) for p in module.parameters()}
        own.add(id(model.label_vectors))
        self.dense_parameters = [p for p in model.parameters() if id(p) not in own and p.requires_grad]
        # Parameters that are split over the processes cannot be updated, nor measured, in one call with those that are not.
        self.kinds = [[p for p in self.dense_parameters if isinstance(p, DTensor) is split] for split in (False, True)]
        groups = _groups(model, config, self.kinds)
        self.dense = torch.optim.AdamW(groups, eps=config.epsilon, fused=True) if groups else None

    def step(self, factor: float) -> float:
        """Update all parameters at `factor` (in [0, 1], the schedule) of the configured rates, and clear gradients.

        Returns the norm of the dense gradients, before they were clipped; 0 where there are none.
        """
        rate = factor * self.config.encoder_learning_rate
        for table in self.tables:
            table.step(rate, factor * self.config.weight_learning_rate)
        vectors = self.model.label_vectors
        if self.vectors is not None and vectors is not None and vectors.grad is not None:
            rows, values = _sparse_rows(vectors.grad)
            self.vectors.step(rows, values, factor * self.config.label_vector_learning_rate)
            vectors.grad = None
        if self.dense is None:
            return 0.0
        norm = self._clip()
        for group in self.dense.param_groups:
            group["lr"] = factor * group["highest"]
        self.dense.step()
        self.dense.zero_grad(set_to_none=True)
        return float(norm)

    def _clip(self) -> Tensor:
        """Scale the dense gradients down to the norm `max_gradient_norm` together, and return what it was."""
        norms = [
            torch.nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in self.kinds if kind
        ]
        whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(whole))
        limit = self.config.max_gradient_norm
        if limit is not None:
            for kind in self.kinds:
                torch.nn.utils.clip_grads_with_norm_(kind, limit, norm)
        return norm

    def state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What a checkpoint holds: of what every process has, and of this process's label vectors, by row."""
        shared: dict[str, Tensor] = {}
        for number, table in enumerate(self.tables):
            shared |= table.vectors.state(f"table{number}.vectors") | table.weights.state(f"table{number}.weights")
        if self.dense is not None:
            for name, parameter in self._named_dense():
                shared |= {f"adamw.{name}.{key}": value for key, value in self.dense.state[parameter].items()}
        own = {} if self.vectors is None else self.vectors.state("vectors")
        if self.vectors is not None:
            shared["vectors.steps"] = own.pop("vectors.steps")
        return shared, own

    def load_state(self, checkpoint: Checkpoint, rows: slice) -> None:
        """Take up what `state` gave; `rows` are this process's label vectors."""
        for number, table in enumerate(self.tables):
            table.vectors.load_state(checkpoint, f"table{number}.vectors")
            table.weights.load_state(checkpoint, f"table{number}.weights")
        if self.vectors is not None:
            self.vectors.load_state(checkpoint, "vectors", rows)
        if self.dense is not None:
            for name, parameter in self._named_dense():
                prefix = f"adamw.{name}."
                keys = [key for key in checkpoint.names if key.startswith(prefix)]
                state = {key.removeprefix(prefix): key for key in keys}
                self.dense.state[parameter] = {"step": torch.tensor(0.0, device=parameter.device)}
                for short, key in state.items():
                    tensor = self.dense.state[parameter].setdefault(short, torch.zeros_like(parameter))
                    load_tensor(tensor, checkpoint, key)

    def _named_dense(self) -> list[tuple[str, torch.nn.Parameter]]:
        own = {id(parameter) for parameter in self.dense_parameters}
        return [(name, parameter) for name, parameter in self.model.named_parameters() if id(parameter) in own]


def _groups(model: DualEncoder, config: TrainConfig, kinds: list[list[torch.nn.Parameter]]) -> list[dict[str, Any]]:
    """AdamW's parameter groups: each with its highest rate, and with weight decay for matrices but free vectors."""
    own_rates: dict[int, float] = {}
    free: set[int] = set()
    if model.prototypes is not None:
        own_rates |= {id(p): config.prototypes.learning_rate for p in model.prototypes.parameters()}
        free = {id(model.prototypes.free_vectors)}
    images = config.transformer.images.learning_rate
    if images is not None:
        own_rates |= {id(p): images for name, p in model.named_parameters() if ".image_projection." in name}
    groups: list[dict[str, Any]] = []
    for kind in kinds:
        found: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for parameter in kind:
            decay = config.weight_decay if parameter.dim() > 1 and id(parameter) not in free else 0.0
            rate = own_rates.get(id(parameter), config.encoder_learning_rate)
            found.setdefault((rate, decay), []).append(parameter)
        groups += [{"params": some, "highest": key[0], "weight_decay": key[1]} for key, some in found.items()]
    return groups


def _sparse_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Unique rows and their gradients; one pass over unique rows is taken as it is, without a sort or a copy."""
    if not gradient.is_coalesced() and len(gradient._indices()[0].unique()) < gradient._nnz():
        gradient = gradient.coalesce()
    return gradient._indices()[0], gradient._values()
