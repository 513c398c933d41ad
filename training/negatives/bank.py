"""Every label as a negative at every step, most of them as they were encoded some steps ago."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from xmc.config import BankConfig, TrainConfig
from xmc.encoders.dual import DualEncoder
from xmc.kernels.topk import topk_inner_product
from xmc.training.batch import Batch, StepReport
from xmc.training.checkpoints import Checkpoint
from xmc.training.distributed import World
from xmc.training.negatives.base import NegativeSource, StepLabels
from xmc.training.negatives.label_bank import BankReport, LabelBank
from xmc.training.parts import PartState, Sizes, TrainingRun
from xmc.training.randomness import Purpose, numpy_random

__all__ = ["BankedLabels"]


class BankedLabels(NegativeSource):
    """Every label is scored; its positives, the hardest labels of each query and some labels in rotation are encoded."""

    name = kind = "bank"
    scores_all = True

    def __init__(
        self, model: DualEncoder, labels: int, config: BankConfig, seed: int, world: World, device: torch.device
    ) -> None:
        """labels: of the data set, whose part that is this process's is held."""
        self.model, self.labels, self.config, self.seed, self.world = model, labels, config, seed, world
        self.own = world.own(labels)
        self.bank = LabelBank(self.own.stop - self.own.start, model.dimension, device)
        self.refresh = min(config.refresh, labels)
        self.order = np.random.default_rng(seed).permutation(labels)
        self.report: BankReport | None = None
        """How stale the bank was at the last step."""

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        """An empty bank."""
        labels = len(run.data.label_features)
        return cls(
            run.model,
            labels,
            run.config.negatives_of(BankConfig),
            run.config.seed,
            run.world,
            run.device,
        )

    @classmethod
    def memory(cls, sizes: Sizes) -> dict[str, float]:
        """A row for each label."""
        return {"label bank": sizes.own_labels * sizes.row}

    @classmethod
    def count(cls, config: TrainConfig, labels: int, queries: float, positives: float) -> tuple[float, float]:
        """All labels are scored, some are encoded."""
        bank = config.negatives_of(BankConfig)
        fresh = positives * bank.positives + queries * bank.hard + bank.refresh
        return labels, min(labels, fresh)

    def begin(self, run: TrainingRun) -> None:
        """Encode all labels."""
        self.bank.fill(run.first_label_texts)

    def encoded(self, batch: Batch, queries: Tensor) -> tuple[Tensor, Tensor | None]:
        """Positives, the hardest labels by the bank, and the labels whose turn it is."""
        turn = self.order[(batch.step * self.refresh + np.arange(self.refresh)) % max(self.labels, 1)]
        positives = batch.targets.positive_labels.numpy()
        if self.config.positives < 1:
            random = numpy_random(self.seed, batch.step, Purpose.BANK)
            positives = random.choice(positives, round(self.config.positives * len(positives)), replace=False)
        chosen = [positives]
        if self.config.hard:
            chosen.append(self._hardest(batch, queries).numpy())
        fresh = torch.from_numpy(np.unique(np.concatenate([*chosen, turn.astype(np.int64)])))
        if not self.config.unbiased:
            return fresh, None
        in_rotation = torch.from_numpy(~np.isin(fresh.numpy(), np.concatenate(chosen)))
        drawn = int(in_rotation.sum())
        return fresh, torch.where(in_rotation, (self.labels - len(fresh) + drawn) / max(drawn, 1), 1.0)

    def completed(self, texts: Tensor, labels: StepLabels, encoded: slice, step: int) -> Tensor:
        """The bank, with what was encoded in place of what it held."""
        fresh = labels.fresh[encoded] - self.own.start
        if labels.weights is not None:
            texts = _Weighted.apply(texts, labels.weights[encoded].to(texts)[:, None])  # type: ignore[no-untyped-call]
        texts, report = self.bank.renew(fresh.to(texts.device), texts, step)
        self.report = report.over(self.world, len(self.bank), len(fresh))
        return texts

    def after_step(self, run: TrainingRun, batch: Batch, report: StepReport) -> Mapping[str, Any]:
        """How stale the bank was."""
        return {} if self.report is None else {"bank": asdict(self.report)}

    def state(self) -> PartState:
        """The bank."""
        return PartState(rows={"bank.embeddings": self.bank.embeddings, "bank.encoded_at": self.bank.encoded_at})

    def load_state(self, run: TrainingRun, checkpoint: Checkpoint) -> None:
        """Take up this process's rows of what `state` gave."""
        for name, tensor in self.state().rows.items():
            tensor.copy_(checkpoint.tensor(name, self.own))

    @torch.no_grad()
    def _hardest(self, batch: Batch, queries: Tensor) -> Tensor:
        """The labels that score highest by the bank and may be negatives, of all queries together: int64, ascending."""
        count = self.config.hard
        texts = self.bank.embeddings.to(queries.dtype)
        labels = self.model.labels(texts, torch.arange(len(texts), device=queries.device))
        exclude = batch.targets.within(self.own).never_negative
        scores, positions = topk_inner_product(queries, labels, count, exclude=exclude)
        rows = torch.where(positions >= 0, positions + self.own.start, -1)
        # of each process's best, transposed so that processes may have different numbers of them
        scores, rows = self.world.gather(scores.T.contiguous()).T, self.world.gather(rows.T.contiguous()).T
        best = rows.gather(1, scores.topk(min(count, scores.shape[1]), dim=1).indices)
        hardest: Tensor = best[best >= 0].unique()
        return hardest.cpu()


class _Weighted(torch.autograd.Function):
    """The rows as they are, their gradients times weights [n, 1]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.saved_tensors[0], None
