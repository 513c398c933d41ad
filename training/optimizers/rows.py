"""Adam on the rows of a matrix that a step touches; other rows and their moments cost nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmc.training.checkpoints import Checkpoint
from xmc.training.optimizers.moments import Moments
from xmc.training.optimizers.row_kernels import adam_rows

__all__ = ["RowAdam"]

BETAS = (0.9, 0.99)
ROWS_AT_ONCE = 16_384


class RowAdam:
    """Adam (Kingma and Ba 2015) on the rows of a matrix [R, D] that have a gradient; other rows and moments stay still.

    The bias corrections follow the number of steps, as in torch.optim.SparseAdam.
    """

    def __init__(self, parameter: Tensor, betas: tuple[float, float] = BETAS, moments: str = "float32") -> None:
        """moments: how the two are stored, "float32", "bfloat16" or "int8" (see xmc.training.optimizers.moments)."""
        self.parameter = parameter.detach()
        self.moments = Moments.from_kind(moments, self.parameter)
        self.betas = betas
        self.steps = 0

    def step(self, rows: Tensor, gradients: Tensor, learning_rate: float) -> None:
        """Update the unique `rows` (int64 [n]) with `gradients` [n, D], all on the parameter's device."""
        rate, root = self.advance(learning_rate)
        if self.parameter.device.type == "cpu" and self.moments.kind == "float32":
            adam_rows(*self.arrays(), rows.numpy(), gradients.numpy(), rate, *self.betas, root)
            return
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
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
