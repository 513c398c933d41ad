"""All that a run directory holds, in memory: what is written to one, and what is read from one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from xmc.arrays import Embeddings
from xmc.calibration.calibration import Calibration
from xmc.config import TrainConfig
from xmc.encoders.dual import DualEncoder
from xmc.indexes.designs import design_of
from xmc.indexes.engines.exact import ExactDesign
from xmc.search.journal_mark import JournalMark
from xmc.search.labels import LabelVersion
from xmc.search.run_metrics import RunMetrics
from xmc.search.stages import Stage
from xmc.storage.fingerprints import fingerprint_of

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """All that a run directory holds.

    tuning_queries: embeddings float32 [n, D] of queries that an index is tuned with. calibration: None before `xmc.calibrate`.
    stages: the further stages of its searches, see xmc.search.stages. files: SHA-256 of the files it was read from, by name.
    source: names the model there, "" for one that was not read. mark: which journalled changes the labels hold.
    """

    model: DualEncoder
    labels: LabelVersion
    config: TrainConfig
    metrics: RunMetrics
    tuning_queries: Embeddings
    calibration: Calibration | None = None
    stages: tuple[Stage, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    mark: JournalMark | None = None

    @property
    def fingerprint(self) -> str:
        """Of the directory that it was read from; "" for one that was not read."""
        return fingerprint_of(self.files) if self.files else ""

    def standalone(self) -> Run:
        """The run as others can open it: nothing outside of it is needed, and nothing is in it but tensors, tables and text.

        Adapters are merged into the backbone that they were trained on, which stays where it is; exact search takes the place
        of an index that writes more than embeddings and ids. ConfigError where adapters cannot be merged.
        """
        model = self.model.with_all_vectors(self.model.label_vectors)  # the same parts, exchanged in this one alone
        model.merge()
        labels, index = self.labels, self.labels.index
        if index.design.kind != ExactDesign.kind:
            labels = labels.with_index(index.with_design(design_of("exact", model.dimension)))
        if labels.memory is not None:
            labels = labels.remembering(labels.memory.exact())
        return replace(self, model=model, labels=labels)
