"""A labelled model with all that a run directory holds: written to one, read from one, and pickled by reference to one."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from typing_extensions import Self

from xmc.arrays import Embeddings
from xmc.calibration.calibration import Calibration, require_calibration
from xmc.config import TrainConfig
from xmc.encoders.base import device_of
from xmc.encoders.dual import DualEncoder
from xmc.encoders.precision import Precision
from xmc.errors import ConflictError, InputError, StoreError
from xmc.search.calibrated import CalibrationFit, require_stages
from xmc.search.journal_mark import JournalMark
from xmc.search.labelled_model import LabelledModel
from xmc.search.labels import LabelVersion
from xmc.search.merging import merged
from xmc.search.moment import Moment
from xmc.search.references import RunReference, SavedState
from xmc.search.run import Run
from xmc.search.run_directory import RunDirectory
from xmc.search.run_metrics import RunMetrics
from xmc.search.stages import Corridor, Stage
from xmc.search.store import LabelStore
from xmc.storage.fingerprints import fingerprint_of
from xmc.storage.locks import alone
from xmc.storage.signatures import Key

__all__ = ["SavedModel"]

logger = logging.getLogger("xmc.search")


class SavedModel(LabelledModel):
    """A labelled model, its calibration and the stages of its searches; the base of `Retriever`, which searches.

    `pickle`, and so multiprocessing, joblib and Spark, writes the name of the run directory that it was loaded from or saved
    to, and not what it holds: other processes open the directory, verified, on the device that `load` was given. StoreError
    where it was changed since, and where the directory is gone or holds another run.

    calibration: None before `xmc.calibrate`. corridor: the stages of a search, see xmc.search.stages. source: names the model
    of the run that it was loaded from, "" for another one. mark: which journalled changes its labels hold.
    """

    def __init__(
        self,
        model: DualEncoder,
        labels: LabelVersion,
        config: TrainConfig,
        metrics: RunMetrics,
        tuning_queries: Embeddings,
        stages: Sequence[Stage] = (),
    ) -> None:
        """Use `load`, or `Retriever.from_model`. Raises InputError for labels whose index does not fit the model."""
        super().__init__(model, labels, config, tuning_queries)
        self.metrics, self.corridor = metrics, Corridor.for_model(self.model, stages)
        self.calibration: Calibration | None = None
        self.source, self.mark = "", cast("JournalMark | None", None)
        self._fit = CalibrationFit()
        self._saved: SavedState | None = None
        self._trusted_keys: Sequence[Key] | None = None

    @classmethod
    def load(
        cls,
        directory: str | Path,
        device: str | Sequence[str] = "auto",
        precision: Precision | None = None,
        trusted_keys: Sequence[Key] | None = None,
    ) -> Self:
        """Read a run directory, verifying every file against its checksum.

        device: where encoder and exact search run, wherever the run was saved: "auto" for the GPU, where there is one;
            "cpu"; a device of torch's; or a list of devices, between which exact search splits the labels. Static encoders
            and FAISS stay on the processor.
        precision: what a transformer computes in: "float32", "bfloat16", or "auto", bfloat16 where the device has
            instructions for it; by default "auto", but float32 for a run that was trained so, or by an older version.
        trusted_keys: public keys; the run must be signed by one of them, see `xmc.verify`; None takes unsigned runs too.
        Raises StoreError, which names a file that does not fit or the key that signed the run, and ConfigError for a device
        that is not there or a word that is no precision.
        """
        run = RunDirectory(directory).read(device, precision, trusted_keys)
        loaded = cls._from_run(run, RunReference.from_directory(directory, run.fingerprint, device, precision))
        loaded._trusted_keys = trusted_keys
        return loaded

    def save(
        self, directory: str | Path, overwrite: bool = False, unchanged: bool = False, discard: bool = False
    ) -> None:
        """Write the run directory: whole or not at all.

        Where another process has saved to the directory that this was loaded from, or saved to last, nothing of that is lost:
        labels, remembered queries, calibration, stages, index and configuration that were changed there alone are taken over,
        into this retriever too, and what was changed here is written with them. Processes wait for each other.

        overwrite: a run may be there, and takes in the changes, or is replaced where it is another directory. unchanged: what
        is there must be what this was loaded from or saved to. discard: whatever was saved there meanwhile is replaced, and
        lost.

        Raises StoreError when `directory` holds something that is not a run, or a run and `overwrite` is not set; and where
        what was changed there was changed here too, or `unchanged` is set and anything was changed there, or it was loaded
        with trusted keys and none of them signed what is there.
        """
        target = RunDirectory(directory)
        with alone(target.path), self._store.changing:
            saved = self._saved
            own = saved is not None and saved.is_of(directory)
            replacing = saved.reference.fingerprint if unchanged and saved is not None else None
            if own and not unchanged and not discard:
                target.require_free(overwrite)
                self._take_over(target)
            files = target.write(self._run(self.model), overwrite, replacing)
            device, precision = ("auto", None) if saved is None else (saved.reference.device, saved.reference.precision)
            self._mark_saved(RunReference.from_directory(directory, fingerprint_of(files), device, precision), files)

    def _take_over(self, target: RunDirectory) -> None:
        """Take over what another process has saved since. StoreError where it does not fit what was changed here."""
        saved = self._saved
        assert saved is not None
        if not target.is_there() or target.fingerprint == saved.reference.fingerprint:
            return
        there = target.read(saved.reference.device, saved.reference.precision, self._trusted_keys)
        try:
            both = merged(
                self._run(self.model),
                saved.changed(self._parts()),
                self._store.changes,
                saved.labels,
                saved.files,
                there,
            )
        except ConflictError as error:
            raise StoreError(
                f"{target.path} was saved by another process since it was loaded, and the two do not go together: {error} "
                f"Load it again and repeat the change, save to another directory, or replace what is there with discard=True."
            ) from error
        logger.info("%s was saved by another process since it was loaded; the changes of both are kept", target.path)
        self._store.use(both.labels)
        self.config, self.metrics, self.tuning_queries = both.config, both.metrics, both.tuning_queries
        self.calibration, self.mark = both.calibration, both.mark
        if both.stages != self.stages:
            self.use_stages(both.stages)

    def snapshot(self) -> Run:
        """What `save` writes, as it is now: later changes of labels do not show in it."""
        with self._store.changing:
            return self._run(self.model)

    def at_one_version(self) -> Self:
        """The same model with labels, stages and calibration as they are now: changes of one do not show in the other.

        For what is asked of the same labels in several steps, while others change them: of `now = retriever.at_one_version()`,
        `now.labels`, `now.embeddings` and `now.predict(...)` belong together. Nothing is copied. It waits for a change or a
        `save` that is under way.
        """
        with self._store.changing:
            same = copy.copy(self)
            same._store, same._fit = LabelStore(self._store.version), copy.copy(self._fit)
            same._stored = None
        return same

    @property
    def reference(self) -> RunReference | None:
        """The run directory that it was loaded from or saved to last; None for neither."""
        return None if self._saved is None else self._saved.reference

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of a search between candidates and cut."""
        return self.corridor.further

    def use_stages(self, stages: Sequence[Stage]) -> None:
        """Search with these stages between candidates and cut; see xmc.search.stages. ConfigError for one given twice."""
        with self._store.changing:
            self.corridor = Corridor.for_model(self.model, stages)

    def require_calibration(self) -> Calibration:
        """The calibration. InputError for a retriever without, and where it was made for other stages of search."""
        calibration = require_calibration(self.calibration)
        require_stages(calibration, self.corridor.fingerprints)
        return calibration

    def fits_calibration(self) -> bool:
        """Whether labels and index are those that calibration is about; a warning is logged once where they are not.

        Raises InputError as `require_calibration`.
        """
        return self._fit.check(self.require_calibration(), self._store.version)

    def __repr__(self) -> str:
        """Sizes, index, encoder, where it runs and where it is stored, in one line."""
        labels, model = self._store.version, self.model
        encoder, place = model.query_encoder, "not saved"
        if self._saved is not None:
            changed = ", changed since" if self._saved.changed(self._parts()) else ""
            place = f"{self._saved.reference.directory}{changed}"
        said = [labels.index.describe(), f"{encoder.kind} encoder on {device_of(encoder)}"]
        said += [f"memory of {len(labels.memory):,} queries"] if labels.memory is not None else []
        said += ["calibrated"] if self.calibration is not None else []
        said += [f"stages {', '.join(stage.name for stage in self.stages)}"] if self.stages else []
        return f"<{type(self).__name__}: {', '.join(said)}; {place}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by reference. StoreError for a retriever that is not what a run directory holds."""
        with self._store.changing:
            if self._saved is None:
                raise StoreError(
                    "The retriever is pickled by reference to its run directory, and was never saved. Save it first: "
                    "retriever.save(DIRECTORY)."
                )
            return _opened, (type(self), self._saved.require_unchanged(self._parts()))

    def __copy__(self) -> Self:
        """Another name for the same labels: changes of one show in the other."""
        same = type(self).__new__(type(self))
        vars(same).update(vars(self))
        return same

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A model of its own over the same labels, which change in each for itself."""
        with self._store.changing:
            saved = self._saved
            unchanged = saved is not None and not saved.changed(self._parts())
            reference = saved.reference if saved is not None and unchanged else None
            return self._from_run(self._run(copy.deepcopy(self.model, memo)), reference)

    def _moment(self) -> Moment:
        """All that an answer comes from, as it is now; it waits for nothing.

        Stages that go with a memory are exchanged while there is none, see RememberingModel.use_memory; so labels that were
        read while the corridor was the same go with it.
        """
        while True:
            corridor, labels = self.corridor, self._store.version
            if corridor is self.corridor:
                return Moment(self.model, labels, corridor)

    def _run(self, model: DualEncoder) -> Run:
        """What a run directory holds, with this model."""
        labels, queries = self._store.version, self.tuning_queries
        run = Run(model, labels, self.config, self.metrics, queries, self.calibration, self.stages)
        files = {} if self._saved is None else self._saved.files
        return replace(run, files=files, source=self.source, mark=self.mark)

    @classmethod
    def _from_run(cls, run: Run, reference: RunReference | None) -> Self:
        """reference: to the directory that holds the run; None where it was changed since."""
        try:
            model = cls(run.model, run.labels, run.config, run.metrics, run.tuning_queries, run.stages)
        except InputError as error:
            where = "" if reference is None else f" {reference.directory}"
            raise StoreError(f"The run{where} holds parts of several runs: {error}") from error
        model.calibration, model.source, model.mark = run.calibration, run.source, run.mark
        if reference is not None:
            model._mark_saved(reference, run.files)
        return model

    def _mark_saved(self, reference: RunReference, files: Mapping[str, str]) -> None:
        self._saved = SavedState(reference, self._parts(), files)
        self._store.begin_changes()

    def _parts(self) -> dict[str, Any]:
        """What a run directory holds, by name."""
        return {
            "model": self.model,
            "labels and index": self._store.version,
            "configuration": self.config,
            "metrics": self.metrics,
            "tuning queries": self.tuning_queries,
            "calibration": self.calibration,
            "stages": self.corridor,
        }


def _opened(kind: type[SavedModel], reference: RunReference) -> SavedModel:
    return kind._from_run(reference.read(), reference)
