"""The part of a training run that decides, by how probable pairs are, what is positive, negative, or neither."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import Self

from xmc.config import SupervisionConfig
from xmc.encoders.dual import DualEncoder
from xmc.training.background import Background
from xmc.training.batch import Batch, StepReport
from xmc.training.checkpoints import Checkpoint
from xmc.training.parts import PartState, Sizes, TrainingPart, TrainingRun
from xmc.training.supervision.decisions import Beliefs, decided
from xmc.training.supervision.draws import held_out_pairs, labels_of_chance, pairs_to_judge
from xmc.training.supervision.estimate import Estimated, Estimator
from xmc.training.supervision.evidence import PairEvidence
from xmc.training.supervision.known import KnownPairs
from xmc.training.supervision.recorded import RecordedShare
from xmc.training.supervision.reports import SupervisionReport, reported
from xmc.training.supervision.scores import score_pairs

__all__ = ["Supervision"]

logger = logging.getLogger("xmc.training")


class Supervision(TrainingPart):
    """Estimates how probable it is that pairs are relevant, from evidence and from the scores of the model in training.

    Until `first_epoch` the data set is believed, but for a share of the given pairs (and of those voted on) that count nowhere:
    what they score then is what unseen pairs score. Each estimate is made of the model as it is before an epoch. In the
    background it is of that model, too, and used `refresh_epochs` later, so that no run depends on how fast a thread is.
    """

    name = "supervision"

    def __init__(self, known: KnownPairs, estimator: Estimator, options: SupervisionConfig, seed: int) -> None:
        self.known, self.estimator, self.options, self.seed = known, estimator, options, seed
        self.beliefs, self.estimated = estimator.first_beliefs()
        self.coming: tuple[Beliefs, Estimated] | None = None
        self.estimates = 0
        """Number of estimates from scores that were used."""
        self.report: SupervisionReport | None = None
        """Of what was decided since the last step."""
        self._background: Background[tuple[Beliefs, Estimated]] = Background("xmc-supervision")

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        """Of the training split's evidence. Raises ConfigError for a share that cannot be estimated."""
        options, data = run.config.supervision, run.data
        evidence = PairEvidence.of(data.known.given, data.votes, data.candidate_sets, data.label_bags)
        trusted = data.validation if run.config.validation.split else None
        recorded = RecordedShare.of(data.known.targets, run.config, trusted)
        unseen = held_out_pairs(pairs_to_judge(evidence, options, recorded), options.held_out, run.config.seed)
        return cls(data.known, Estimator(evidence, options, unseen, recorded), options, run.config.seed)

    @classmethod
    def memory(cls, sizes: Sizes) -> dict[str, float]:
        """Candidates of each query, int32, and their probability, float16; twice where they are made in the background."""
        options = sizes.config.supervision
        if options.positives is None and options.recorded == 1.0:
            return {}
        copies = 2 if options.background else 1
        return {"candidates of queries (host)": copies * 6.0 * sizes.queries * min(options.candidates, sizes.labels)}

    def begin(self, run: TrainingRun) -> None:
        """Train on what is believed without scores."""
        estimator = self.estimator
        if estimator.approvals.names and not estimator.recorded.some_missing and run.world.is_root:
            logger.warning(
                "supervision.recorded says that every relevant pair is given: votes for other pairs by sources that never vote "
                "against one (%s) count as wrong. Say which share is given, such as supervision.recorded=0.8.",
                ", ".join(estimator.approvals.names),
            )
        self._use()

    def before_epoch(self, run: TrainingRun, epoch: int) -> None:
        """Estimate where it is time to."""
        options, since = self.options, epoch - self.options.first_epoch
        if since < 0 or since % options.refresh_epochs:
            return
        settled = self._settled()
        if settled is not None:
            self._take_up(run, settled)
        if self.estimates and not self._revisable:
            return
        chance = labels_of_chance(self.estimator.counts, len(run.data.training), self.seed, epoch)
        if not options.background:
            self._take_up(run, self._estimate(run, run.model, chance))
        elif run.world.size == 1 and all(encoder.is_thread_safe for encoder in run.model.encoders):
            self._background.start(self._estimate, run, copy.deepcopy(run.model), chance)
        else:
            self.coming = self._estimate(run, run.model, chance)

    def after_step(self, run: TrainingRun, batch: Batch, report: StepReport) -> Mapping[str, Any]:
        """What was decided since the last step."""
        decided_now, self.report = self.report, None
        return {} if decided_now is None else {"supervision": asdict(decided_now)}

    def state(self) -> PartState:
        """What is believed, and what will be; waits for what is being estimated."""
        tensors = _tensors("supervision", self.beliefs, self.estimated)
        coming = self._settled()
        if coming is not None:
            self.coming = coming
            tensors |= _tensors("supervision.coming", *coming)
        return PartState({**tensors, "supervision.estimates": torch.tensor(self.estimates)})

    def load_state(self, run: TrainingRun, checkpoint: Checkpoint) -> None:
        """Take up what `state` gave, and train on it."""
        self.beliefs, self.estimated = _loaded("supervision", checkpoint)
        self.estimates = int(checkpoint.tensor("supervision.estimates"))
        if "supervision.coming.evidence" in checkpoint.names:
            self.coming = _loaded("supervision.coming", checkpoint)
        self._use()

    def close(self) -> None:
        """End the thread."""
        self._background.close()

    @property
    def _revisable(self) -> bool:
        """Whether later scores say more: pairs that are only given, or only voted on, are judged once."""
        return self.estimator.sought or bool(len(self.estimator.evidence.groups))

    def _estimate(
        self, run: TrainingRun, model: DualEncoder, chance: npt.NDArray[np.int64]
    ) -> tuple[Beliefs, Estimated]:
        """By a model as it is."""
        data, estimator = run.data, self.estimator
        candidates = self.options.candidates if estimator.sought else 0
        scores = score_pairs(
            model, data.query_features, data.label_features, estimator.evidence.pairs, chance, candidates, run.world
        )
        if not self.estimates:
            return estimator.first(scores, chance)
        return estimator.beliefs(scores, self.estimated), self.estimated

    def _settled(self) -> tuple[Beliefs, Estimated] | None:
        """The estimate that was made ahead, once it is; None where there is none."""
        settled = self._background.result() or self.coming
        self.coming = None
        return settled

    def _take_up(self, run: TrainingRun, settled: tuple[Beliefs, Estimated]) -> None:
        self.beliefs, self.estimated = settled
        self.estimates += 1
        self._use()
        self.report = reported(self.estimator, self.beliefs, self.estimated, self.known.entries)
        if run.world.is_root:
            logger.info("supervision: %s", self.report)

    def _use(self) -> None:
        """Train on what is believed."""
        estimator = self.estimator
        unseen = estimator.unseen if not self.estimates else np.zeros(len(estimator.evidence), bool)
        most = estimator.most_new(self.estimated)
        self.known.use(decided(estimator.evidence, self.beliefs, self.options, unseen, most))


def _tensors(prefix: str, beliefs: Beliefs, estimated: Estimated) -> dict[str, torch.Tensor]:
    arrays = {f"{prefix}.{name}": value for name, value in {**vars(beliefs), **estimated.arrays()}.items()}
    # Copies, since what a later estimate keeps of the first is in both, and no two tensors of a checkpoint share memory.
    return {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}


def _loaded(prefix: str, checkpoint: Checkpoint) -> tuple[Beliefs, Estimated]:
    start = len(prefix) + 1
    arrays = {
        name[start:]: checkpoint.tensor(name).numpy()
        for name in sorted(checkpoint.names)
        if name.startswith(f"{prefix}.") and "." not in name[start:]
    }
    beliefs = Beliefs(arrays.pop("evidence"), arrays.pop("labels"), arrays.pop("candidates"))
    arrays.pop("estimates", None)
    return beliefs, Estimated.from_arrays(arrays)
