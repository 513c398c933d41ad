"""The one reader and writer of a run directory: which file holds what, in which form, and which files belong together."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import numpy as np

from xmc.arrays import Mask
from xmc.cached import cached_property
from xmc.calibration.calibration import Calibration
from xmc.config import TrainConfig
from xmc.config.yaml_values import read_yaml
from xmc.encoders.dual import DualEncoder
from xmc.encoders.precision import Precision
from xmc.errors import InputError, StoreError, boundary
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.identifiers import LabelIds
from xmc.indexes.storage import StoredIndex, read_index, read_rows, write_index
from xmc.search.journal_mark import JournalMark
from xmc.search.labels import LabelVersion
from xmc.search.memory.queries import QueryMemory
from xmc.search.memory.stage import RecallQueries
from xmc.search.placement import place_model
from xmc.search.rerank import stage as _  # noqa: F401 (registers its stage)
from xmc.search.run import Run
from xmc.search.run_metrics import RunMetrics
from xmc.search.stages import STAGES, Stage
from xmc.storage.arrow import read_embeddings, write_embeddings
from xmc.storage.directories import atomic_directory, read_unreplaced
from xmc.storage.fingerprints import fingerprint_of, sha256_file
from xmc.storage.manifests import LOG, MANIFEST, read_manifest, require_free, verify_files
from xmc.storage.run_layout import (
    CALIBRATION,
    CONFIG,
    ENCODERS,
    INDEX,
    KIND,
    LABELS,
    MEMORY,
    METRICS,
    MODEL,
    STAGES_FILE,
    STAGES_FOLDER,
    TUNING_QUERIES,
    has_memory,
    model_name,
    source_of,
)  # fmt: skip
from xmc.storage.signatures import Key, signed_by
from xmc.storage.small_files import read_text

__all__ = ["RunDirectory"]

_CONTENT = {
    **dict.fromkeys(ENCODERS, "encoder"),
    MODEL: "label vectors, temperature",
    f"{INDEX}/embeddings.arrow": "label embeddings",
    f"{INDEX}/index.faiss": "index",
    f"{INDEX}/ids.arrow": "labels",
    LABELS: "labels",
    MEMORY: "remembered queries",
    f"{STAGES_FOLDER}/{RecallQueries.name}": "encoder of remembered queries",
}
"""What a file or folder holds, in words."""
_ALWAYS = ("encoder", "label vectors, temperature", "label embeddings", "index", "labels", "everything else")
"""What is told of every run, where there is nothing of it too."""


class RunDirectory:
    """A run on disk. Nothing is read before it is asked for; what is read stays as it was then.

    All methods that read raise StoreError where there is no run, or where a file is not as it was written.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises InputError for what is no path."""
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(
                f"A run is named by its directory, but given is {path!r:.100}, of type {type(path).__name__}."
            )
        self.path = Path(path)

    @property
    def log(self) -> Path:
        """The file with a line for each training step, which may be missing."""
        return self.path / LOG

    def read_log(self) -> str:
        """The lines of training; "" where there are none."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""

    def require_free(self, overwrite: bool = False) -> None:
        """Raise StoreError where `write` would, before the work whose result is to be written."""
        require_free(self.path, KIND, overwrite)

    def is_there(self) -> bool:
        """Whether there is something that calls itself a run."""
        return (self.path / MANIFEST).is_file()

    def require(self) -> None:
        """Raise StoreError where there is no run; its files are not looked at."""
        read_manifest(self.path, KIND, verify=False)

    def read(
        self,
        device: str | Sequence[str] = "auto",
        precision: Precision | None = None,
        trusted_keys: Sequence[Key] | None = None,
    ) -> Run:
        """Read everything, verifying every file against its checksum. Files of two runs are never taken together.

        device: where the encoder and the index run; ConfigError for one that is not there. precision: what encoders compute
        in. trusted_keys: public keys; the run must be signed by one of them. See `Retriever.load`.
        """

        def read() -> Run:
            if trusted_keys is None:
                return RunDirectory(self.path)._read(device, precision)
            with signed_by(self.path, trusted_keys):
                return RunDirectory(self.path)._read(device, precision)

        return read_unreplaced(self.path, read)

    def read_model_and_labels(self) -> tuple[DualEncoder, LabelVersion, tuple[Stage, ...]]:
        """The model, the labels and the further stages, without the index; every file of the run is verified.

        Files of two runs are never taken together.
        """
        return read_unreplaced(self.path, lambda: RunDirectory(self.path)._read_model_and_labels())

    def read_labels(self) -> LabelVersion:
        """The labels alone, without their embeddings."""
        return self._labels(self._verified(LABELS))

    def read_calibration(self) -> Calibration | None:
        """The calibration alone; None where the run has none that this version reads."""
        names = [name for name in self._manifest["files"] if name.startswith(f"{CALIBRATION}/")]
        return self._calibration(self._verified(*names))

    @property
    def precision(self) -> Precision:
        """What encoders compute in where nobody says otherwise: float32 where the run was trained in that, or by an older
        version; else what the device allows, for a run may be trained on one and opened on another.
        """
        self._verified(CONFIG)
        return self._own_precision

    def read_source_columns(self) -> dict[str, str]:
        """What the source of the training data called its columns, see Dataset.source_columns; empty where it is not known."""
        self._verified(METRICS)
        training = self._metrics().training
        return {} if training is None else dict(training.columns)

    def read_label_embeddings(self) -> tuple[EmbeddingBlocks, LabelIds, Mask]:
        """Embeddings [n, D] of the index's labels, memory-mapped, with their ids [n], and which were not removed, bool [n].

        Files of two runs are never taken together.
        """
        return read_unreplaced(self.path, lambda: RunDirectory(self.path)._read_label_embeddings())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the checksums of all files, without reading the files."""
        return fingerprint_of(_digests_in(self._manifest))

    def bytes_by_content(self) -> dict[str, int]:
        """Bytes of the files by what they hold, in words, from the sizes in the manifests."""
        contents = dict.fromkeys([*_CONTENT.values(), "everything else"], 0)
        files = dict(self._manifest["files"])
        for folder in (INDEX, *([f"{MEMORY}/{INDEX}"] if has_memory(self._manifest) else [])):
            inner = read_manifest(self.path / folder, "index", verify=False)["files"]
            files |= {f"{folder}/{name}": entry for name, entry in inner.items()}
        for name, entry in files.items():
            parts = name.split("/")
            known = (content for content in map(_CONTENT.get, (name, "/".join(parts[:2]), parts[0])) if content)
            contents[next(known, "everything else")] += int(entry["size"])
        return {content: size for content, size in contents.items() if size or content in _ALWAYS}

    def require_unreplaced(self, fingerprint: str) -> None:
        """StoreError where the directory holds another run than the one of this fingerprint."""
        if RunDirectory(self.path).fingerprint != fingerprint:
            raise StoreError(
                f"{self.path} was written by another process since it was read, so that changes would be lost; it is left as "
                f"it is. Do this again, with the run as it is now."
            )

    def write(self, run: Run, overwrite: bool = False, replacing: str | None = None) -> dict[str, str]:
        """Write a run, whole or not at all, and return the SHA-256 of its files by name.

        replacing: the fingerprint of the run that it may take the place of.
        Raises StoreError where the directory holds something that is not a run, a run and `overwrite` is not set, or another
        run than that one; ConfigError for a stage that is not registered.
        """
        self.require_free(overwrite)
        if replacing is not None:
            self.require_unreplaced(replacing)
        for stage in run.stages:
            STAGES[stage.name]
        properties: dict[str, Any] = {
            "labels": len(run.labels),
            "dimension": run.model.dimension,
            "seed": run.config.seed,
        }
        properties["next_label_id"] = run.labels.next_id
        if run.mark is not None:
            properties["journal"] = run.mark.to_dict()
        known: dict[str, str] = {}
        written: dict[str, Any] = {}
        with atomic_directory(self.path, KIND, known, written, **properties) as temporary:
            (temporary / CONFIG).write_text(run.config.to_yaml(), encoding="utf-8")
            (temporary / METRICS).write_text(json.dumps(run.metrics.to_dict(), indent=2) + "\n", encoding="utf-8")
            run.model.save(temporary)
            run.labels.write(temporary / LABELS)
            write_embeddings([run.tuning_queries], run.model.dimension, temporary / TUNING_QUERIES)
            stored = StoredIndex(run.labels.index, run.labels.all_ids.values)
            known |= _digests(temporary)
            write_index(temporary / INDEX, stored, source=model_name(known))
            if run.labels.memory is not None:
                run.labels.memory.save(temporary / MEMORY, source=model_name(known))
            if run.calibration is not None:
                run.calibration.save(temporary / CALIBRATION)
            if run.stages:
                stages = [{"name": stage.name, "options": stage.options} for stage in run.stages]
                (temporary / STAGES_FILE).write_text(json.dumps(stages, indent=2) + "\n", encoding="utf-8")
                _save_stages(run.stages, temporary / STAGES_FOLDER)
            if replacing is not None:
                self.require_unreplaced(replacing)  # still: it may have been long
        return _digests_in(written)

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        """The manifest; the files that it lists are not verified."""
        return read_manifest(self.path, KIND, verify=False)

    @property
    def _own_precision(self) -> Precision:
        return "float32" if self._config.precision == "float32" else "auto"

    def _verified(self, *names: str) -> dict[str, Any]:
        """The manifest. StoreError where one of these files is not as it says, or it does not list it."""
        files = self._manifest["files"]
        for name in names:
            if name not in files:
                raise StoreError(f"{self.path} lists no {name}, so it is not a whole run. Copy it again.")
        verify_files(self.path, files, names)
        return self._manifest

    def _read(self, device: str | Sequence[str], precision: Precision | None) -> Run:
        manifest = read_manifest(self.path, KIND)
        source = source_of(manifest)
        model = DualEncoder.load(self.path)
        config = self._config
        place_model(model, device, self._own_precision if precision is None else precision)
        stored = read_index(self.path / INDEX, source, device)
        try:
            labels = self._labels(manifest).with_stored(stored)
        except InputError as error:
            raise StoreError(f"The run {self.path} holds parts of several runs: {error}") from error
        return Run(
            model=model,
            labels=labels.remembering(self._memory(manifest, device)),
            config=config,
            metrics=self._metrics(),
            tuning_queries=np.concatenate(read_embeddings(self.path / TUNING_QUERIES)),
            calibration=self._calibration(manifest),
            stages=self._stages(manifest, model),
            files=_digests_in(manifest),
            source=source,
            mark=JournalMark.from_properties(manifest["properties"]),
        )

    def _read_model_and_labels(self) -> tuple[DualEncoder, LabelVersion, tuple[Stage, ...]]:
        manifest = read_manifest(self.path, KIND)
        model = DualEncoder.load(self.path).eval()
        labels = self._labels(manifest).remembering(self._memory(manifest))
        return model, labels, self._stages(manifest, model)

    def _read_label_embeddings(self) -> tuple[EmbeddingBlocks, LabelIds, Mask]:
        directory = self.path / INDEX
        self._verified(f"{INDEX}/{MANIFEST}")
        with self._readable(f"{INDEX}/{MANIFEST}"):
            dimension = int(read_manifest(directory, "index")["properties"]["dimension"])
        return read_rows(directory, dimension)

    @cached_property
    def _config(self) -> TrainConfig:
        values = self._parsed(CONFIG, lambda text: read_yaml(text, str(self.path / CONFIG)))
        return TrainConfig.from_mapping(values, source=str(self.path / CONFIG))

    def _metrics(self) -> RunMetrics:
        return cast(RunMetrics, self._parsed(METRICS, lambda text: RunMetrics.from_dict(json.loads(text))))

    def _parsed(self, name: str, parse: Callable[[str], Any]) -> Any:
        """The content of a text file. StoreError where it is not of the expected form."""
        with self._readable(name):
            return parse(read_text(self.path / name))

    def _readable(self, name: str) -> AbstractContextManager[None]:
        return boundary(StoreError, f"The run {self.path} cannot be read: {name}")

    def _labels(self, manifest: Mapping[str, Any]) -> LabelVersion:
        with self._readable(LABELS):
            return LabelVersion.read(self.path / LABELS, int(manifest["properties"]["next_label_id"]))

    def _memory(self, manifest: Mapping[str, Any], device: str | Sequence[str] = "auto") -> QueryMemory | None:
        if not has_memory(manifest):
            return None
        return QueryMemory.read(self.path / MEMORY, source_of(manifest), device)

    def _stages(self, manifest: Mapping[str, Any], model: DualEncoder) -> tuple[Stage, ...]:
        if STAGES_FILE not in manifest["files"]:
            return ()
        stages = []
        with self._readable(STAGES_FILE):
            listed = [(str(entry["name"]), dict(entry["options"])) for entry in self._parsed(STAGES_FILE, json.loads)]
        for name, options in listed:
            if name not in STAGES:
                raise StoreError(
                    f"The run {self.path} needs the stage {name!r}, which is not there; import what registers it in "
                    f"xmc.search.stages.STAGES first."
                )
            with self._readable(STAGES_FILE):
                stages.append(STAGES[name].for_model(model, self.path / STAGES_FOLDER / name, **options))
        return tuple(stages)

    def _calibration(self, manifest: Mapping[str, Any]) -> Calibration | None:
        """None too where the manifest lists no calibration: nobody vouches for such files."""
        listed = any(name.startswith(f"{CALIBRATION}/") for name in manifest["files"])
        return Calibration.load(self.path / CALIBRATION) if listed else None


def _save_stages(stages: Sequence[Stage], directory: Path) -> None:
    """Each stage in a folder of its own; nothing is left of those that write nothing."""
    for stage in stages:
        folder = directory / stage.name
        folder.mkdir(parents=True)
        stage.save(folder)
        if not any(folder.iterdir()):
            folder.rmdir()
    if not any(directory.iterdir()):
        directory.rmdir()


def _digests_in(manifest: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(entry["sha256"]) for name, entry in manifest["files"].items()}


def _digests(run: Path) -> dict[str, str]:
    """SHA-256 of the files of a run's model, by name."""
    paths = [path for part in (*ENCODERS, MODEL) for path in [run / part, *(run / part).rglob("*")] if path.is_file()]
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(sha256_file, paths))
    return {path.relative_to(run).as_posix(): digest for path, digest in zip(paths, digests, strict=True)}
