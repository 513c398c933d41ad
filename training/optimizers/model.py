"""Every parameter of a dual encoder with the optimizer that it needs: Adam on rows of tables, AdamW for whatever is dense."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xmc.config import ResidualConfig, TrainConfig
from xmc.encoders.dual import DualEncoder
from xmc.encoders.static.encoder import FeatureTable
from xmc.training.checkpoints import Checkpoint
from xmc.training.distributed.sharding import is_split, load_tensor
from xmc.training.optimizers.rows import RowAdam
from xmc.training.optimizers.tables import FeatureTableAdam

__all__ = ["Optimizers", "dense_parameters"]


class Optimizers:
    """Every parameter of a dual encoder with the optimizer it needs, driven by one learning-rate schedule."""

    def __init__(self, model: DualEncoder, config: TrainConfig) -> None:
        self.config = config
        self.model = model
        modules = list(model.modules())
        self.tables = [FeatureTableAdam(module) for module in modules if isinstance(module, FeatureTable)]
        vectors = model.label_vectors
        self.vectors = None
        if vectors is not None:
            self.vectors = RowAdam(vectors, moments=ResidualConfig.require(config.label_vectors).moments)
        self.dense_parameters = dense_parameters(model)
        # Parameters that are split over the processes cannot be updated, nor measured, in one call with those that are not.
        self.kinds = [[p for p in self.dense_parameters if is_split(p) is split] for split in (False, True)]
        groups = _groups(model, config, self.kinds)
        self.dense = torch.optim.AdamW(groups, eps=config.optimizer.epsilon, fused=True) if groups else None

    def step(self, factor: float) -> float:
        """Update all parameters at `factor` (in [0, 1], the schedule) of the configured rates, and clear gradients.

        Returns the norm of the dense gradients, before they were clipped; 0 where there are none.
        """
        rate = factor * self.config.encoder_learning_rate
        for table in self.tables:
            table.step(rate, factor * self.config.optimizer.learning_rate.feature_weights)
        vectors = self.model.label_vectors
        if self.vectors is not None and vectors is not None and vectors.grad is not None:
            rows, values = _sparse_rows(vectors.grad)
            self.vectors.step(rows, values, factor * self.config.optimizer.learning_rate.label_vectors)
            vectors.grad = None
        if self.dense is None:
            return 0.0
        norm = self._clip()
        for group in self.dense.param_groups:
            group["lr"] = factor * group["highest"]
        self.dense.step()
        # torch's fused AdamW does not count what it changes in place, which working copies go by.
        torch.autograd.graph.increment_version([p for p in self.dense_parameters if p.grad is not None])
        self.dense.zero_grad(set_to_none=True)
        return float(norm)

    def _clip(self) -> Tensor:
        """Scale the dense gradients down to the norm `max_gradient_norm` together, and return what it was."""
        norms = [
            torch.nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in self.kinds if kind
        ]
        full = [norm.full_tensor() if is_split(norm) else norm for norm in norms]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(full))
        limit = self.config.optimizer.max_gradient_norm
        if limit is not None:
            for kind in self.kinds:
                torch.nn.utils.clip_grads_with_norm_(kind, limit, norm)
        return norm

    def state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What a checkpoint holds: tensors that every process has, and tensors with a row for each of this process's labels."""
        shared: dict[str, Tensor] = {}
        for number, table in enumerate(self.tables):
            shared |= table.vectors.state(f"table{number}.vectors") | table.weights.state(f"table{number}.weights")
        if self.dense is not None:
            for name, parameter in self._named_dense():
                shared |= {f"adamw.{name}.{key}": value for key, value in self.dense.state[parameter].items()}
        rows = {} if self.vectors is None else self.vectors.state("vectors")
        if self.vectors is not None:
            shared["vectors.steps"] = rows.pop("vectors.steps")
        return shared, rows

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
                if not keys:
                    continue  # it had no gradient yet
                state = {key.removeprefix(prefix): key for key in keys}
                self.dense.state[parameter] = {"step": torch.tensor(0.0, device=parameter.device)}
                for short, key in state.items():
                    tensor = self.dense.state[parameter].setdefault(short, torch.zeros_like(parameter))
                    load_tensor(tensor, checkpoint, key)

    def _named_dense(self) -> list[tuple[str, torch.nn.Parameter]]:
        dense = {id(parameter) for parameter in self.dense_parameters}
        return [(name, parameter) for name, parameter in self.model.named_parameters() if id(parameter) in dense]


def dense_parameters(model: DualEncoder) -> list[torch.nn.Parameter]:
    """The learned parameters that a step changes as a whole: all but feature tables and label vectors, changed by rows."""
    by_rows = {id(p) for module in model.modules() if isinstance(module, FeatureTable) for p in module.parameters()}
    by_rows.add(id(model.label_vectors))
    return [p for p in model.parameters() if id(p) not in by_rows and p.requires_grad]


def _groups(model: DualEncoder, config: TrainConfig, kinds: list[list[torch.nn.Parameter]]) -> list[dict[str, Any]]:
    """AdamW's parameter groups: each with its highest rate, and with weight decay for matrices but free vectors."""
    rates: dict[int, float] = {}
    free: set[int] = set()
    if model.prototypes is not None:
        rates |= {id(p): config.optimizer.learning_rate.prototypes for p in model.prototypes.parameters()}
        free = {id(model.prototypes.free_vectors)}
    for encoder in model.encoders:
        of_encoder = encoder.learning_rates(config.optimizer.learning_rate)
        rates |= {id(p): of_encoder[name] for name, p in encoder.named_parameters() if name in of_encoder}
    groups: list[dict[str, Any]] = []
    for kind in kinds:
        by_options: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for parameter in kind:
            decay = config.optimizer.weight_decay if parameter.dim() > 1 and id(parameter) not in free else 0.0
            rate = rates.get(id(parameter), config.encoder_learning_rate)
            by_options.setdefault((rate, decay), []).append(parameter)
        groups += [{"params": some, "highest": key[0], "weight_decay": key[1]} for key, some in by_options.items()]
    return groups


def _sparse_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Unique rows and their gradients; one pass over unique rows is taken as it is, without a sort or a copy."""
    if not gradient.is_coalesced() and len(gradient._indices()[0].unique()) < gradient._nnz():
        gradient = gradient.coalesce()
    return gradient._indices()[0], gradient._values()
