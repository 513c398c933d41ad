"""Labels of a step, made by hand or by a small training."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from worlds import colours, tiny_config

from xmc.config import BankConfig, ShortlistConfig, TrainConfig
from xmc.data.targets import Targets
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.training.assembly import part_kinds
from xmc.training.data import TrainingData, prepare
from xmc.training.distributed import World
from xmc.training.negatives import JoinedNegatives, NegativeSource, StepLabels
from xmc.training.negatives.all_labels import AllLabels
from xmc.training.negatives.bank import BankedLabels
from xmc.training.negatives.in_batch import InBatch
from xmc.training.parts import TrainingRun
from xmc.training.step import Step
from xmc.training.supervision.known import KnownPairs
from xmc.training.targets import StepTargets

__all__ = [
    "FILTERED",
    "NOTHING",
    "POSITIVES",
    "banked",
    "begun",
    "drawn",
    "everything",
    "in_batch",
    "known_pairs",
    "matrix",
    "mined_by",
    "pairs",
    "world",
]


def matrix(lists: list[list[int]], labels: int) -> csr_matrix:
    indptr = np.cumsum([0, *map(len, lists)])
    return csr_matrix((np.ones(indptr[-1], np.float32), np.concatenate(lists), indptr), shape=(len(lists), labels))


POSITIVES = matrix([[0, 3], [1], [2, 4, 5], []], 8)


FILTERED = np.array([[0, 7], [3, 1]])


NOTHING = torch.zeros(0, 0)


def known_pairs(
    config: TrainConfig,
    filtered: np.ndarray | None = None,
    taught: csr_matrix | None = None,
    positives: csr_matrix = POSITIVES,
) -> KnownPairs:
    return KnownPairs(Targets.from_pairs(positives, excluded=filtered), config, taught)


def everything(labels: int = 8) -> JoinedNegatives:
    return JoinedNegatives([AllLabels()], labels)


def in_batch(*sources: NegativeSource) -> JoinedNegatives:
    return JoinedNegatives([InBatch(), *sources], 8)


def mined_by(config: TrainConfig) -> ShortlistConfig:
    return config.negatives_of(ShortlistConfig)


def banked(config: TrainConfig, labels: int = 8) -> BankedLabels:
    model = build_encoder(config, 0, torch.Generator().manual_seed(0))
    source = BankedLabels(model, labels, config.negatives_of(BankConfig), config.seed, World(), torch.device("cpu"))
    source.bank.fill(torch.nn.functional.normalize(torch.randn(labels, model.dimension)))
    return source


def pairs(step: StepLabels) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(query, label row) of positives and of what is left out."""
    chosen = []
    for entries in (step.targets.positives, step.targets.exclude):
        labels = [] if entries is None else step.rows[entries.indices].tolist()
        chosen.append([] if entries is None else list(zip(entries.rows.tolist(), labels, strict=True)))
    return chosen[0], chosen[1]


def drawn(targets: StepTargets) -> csr_matrix:
    """CSR [B, L] of the positives."""
    positives = targets.positives
    ones = np.ones(len(positives.indices))
    return csr_matrix((ones, positives.indices.numpy(), positives.indptr.numpy()), (len(targets), targets.count))


def world(**changes: object) -> tuple[TrainConfig, DualEncoder, TrainingData]:
    config = tiny_config(**{"data.token_dropout": 0.0, "data.label_token_dropout": 0.0}, **changes)
    model = build_encoder(config, 12, torch.Generator().manual_seed(0))
    return config, model, prepare(colours(), config, model)


def begun(config: TrainConfig, model: DualEncoder, data: TrainingData) -> tuple[TrainingRun, Step]:
    """A run before its first step, with all of its parts."""
    run = TrainingRun(config, model, data)
    for kind in part_kinds(config):
        run.parts.append(kind.from_run(run))
    run.begin()
    sources = [part for part in run.parts if isinstance(part, NegativeSource)]
    return run, Step(run, JoinedNegatives(sources, len(data.label_features)))
