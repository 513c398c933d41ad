"""Checkpoints: what a run needs to go on as if it had never stopped, whole or absent, the latest few."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xmc.config import CheckpointConfig, TrainConfig
from xmc.errors import StoreError, boundary
from xmc.storage.directories import atomic_directory
from xmc.storage.manifests import MANIFEST, read_manifest, refuse_foreign_directory

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "may_write",
    "require_same",
    "require_space",
    "settings_that_matter",
]

logger = logging.getLogger("xmc.training")
KIND = "checkpoint"
TENSORS, STATE = "tensors.safetensors", "state.json"


class Checkpoint:
    """A checkpoint on disk, verified: `state`, plain values, and tensors by name, read when they are asked for."""

    def __init__(self, directory: Path) -> None:
        """Raises StoreError when a file is missing, truncated or changed."""
        read_manifest(directory, KIND)
        self.directory = directory
        with boundary(StoreError, f"The checkpoint {directory} cannot be read"):
            self.state: dict[str, Any] = dict(json.loads((directory / STATE).read_text(encoding="utf-8")))
            file: Any = safe_open(directory / TENSORS, "pt")
            self._file, self.names = file, frozenset(file.keys())

    def tensor(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor, or some of its rows; StoreError where it is not there."""
        if name not in self.names:
            raise StoreError(f"The checkpoint {self.directory} lacks {name!r}; it belongs to another configuration.")
        with boundary(StoreError, f"{name!r} of the checkpoint {self.directory} cannot be read"):
            if rows is None:
                found: Tensor = self._file.get_tensor(name)
            else:
                found = self._file.get_slice(name)[rows.start : rows.stop]
        return found


class Checkpoints:
    """The checkpoints of the run at `out`, in the directory beside it that is called `<out>.checkpoints`."""

    def __init__(self, out: Path, config: CheckpointConfig) -> None:
        self.directory = out.with_name(out.name + ".checkpoints")
        self.config = config
        self._last = time.monotonic()

    @property
    def unfinished(self) -> bool:
        """Whether a run was begun here that is not whole yet, with or without a checkpoint."""
        return self.directory.is_dir()

    def begin(self) -> None:
        """Mark the run as begun; StoreError where that cannot be written."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.directory} cannot be made: {error}. Name another directory for the run."
            ) from error

    def due(self, step: int) -> bool:
        """Whether it is time, after `step` steps."""
        if self.config.steps is not None and step % self.config.steps == 0:
            return True
        return self.config.minutes is not None and time.monotonic() - self._last >= 60 * self.config.minutes

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write the checkpoint of a step, then remove all but the `keep` latest. StoreError where it cannot be written."""
        start = time.monotonic()
        try:
            with atomic_directory(self.path(step), KIND, step=step) as temporary:
                own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
                save_file(own, temporary / TENSORS)
                (temporary / STATE).write_text(json.dumps(dict(state)) + "\n", encoding="utf-8")
        except (OSError, SafetensorError, StoreError) as error:
            cause = error.__cause__ if isinstance(error, StoreError) else error
            if cause is None:
                raise  # something else stands there
            before = self._paths()
            left = f"The last whole one is {before[-1]}." if before else "There is none before it."
            raise StoreError(
                f"The checkpoint of step {step} cannot be written to {self.directory}: {cause}. {left} "
                f"Make room and go on with resume."
            ) from error
        for old in self._paths()[: -self.config.keep]:
            shutil.rmtree(old)
        self._last = time.monotonic()
        logger.info("checkpoint of step %d written in %.1f s", step, self._last - start)

    def path(self, step: int) -> Path:
        """The directory of a step's checkpoint."""
        return self.directory / f"step-{step:09d}"

    def latest(self) -> Checkpoint | None:
        """The latest whole checkpoint; what is damaged is named in a warning. None where there is none."""
        self._remove_torn()
        for path in reversed(self._paths()):
            try:
                return Checkpoint(path)
            except StoreError as error:
                logger.warning("%s An earlier checkpoint is used.", error)
        return None

    def remove(self) -> None:
        """Remove them all: the run is whole, or another begins."""
        self._remove_torn()
        for path in self._paths():
            shutil.rmtree(path)
        if self.directory.is_dir() and not any(self.directory.iterdir()):
            self.directory.rmdir()

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.directory.glob("step-*") if path.is_dir())

    def _remove_torn(self) -> None:
        """What a killed process was writing."""
        for path in self.directory.glob(".step-*.tmp"):
            shutil.rmtree(path, ignore_errors=True)


def require_space(out: Path, needed: Callable[[], int]) -> None:
    """Raise StoreError unless the directory that will hold `out` can be written, and has room for `needed` bytes."""
    existing = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    probe = existing / f".{out.name}.probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"{existing} cannot be written to: {error}. Name another directory for the run.") from error
    free, wanted = shutil.disk_usage(existing).free, needed()
    if free < wanted:
        raise StoreError(
            f"{existing} has {free / 2**30:.2f} GiB of free space; the run and its checkpoints need "
            f"{wanted / 2**30:.2f} GiB. Free some, name another directory, or lower checkpoint.keep."
        )


def may_write(out: Path, config: CheckpointConfig, overwrite: bool, resume: bool) -> bool:
    """Refuse what stands at `out` and must stay; whether a run was begun there that is to be gone on with."""
    refuse_foreign_directory(out, "run")
    checkpoints = Checkpoints(out, config)
    if resume and checkpoints.unfinished:
        return True
    if not overwrite and (out / MANIFEST).exists():
        finished = " It is finished: there is nothing to resume." if resume else ""
        raise StoreError(f"{out} already holds a run; name another directory, or overwrite it explicitly.{finished}")
    checkpoints.remove()
    return False


def require_same(checkpoint: Checkpoint, identity: dict[str, Any]) -> None:
    """Raise StoreError unless the checkpoint is of the same data set and configuration, as in `identity`."""
    if checkpoint.state["dataset"] != identity["dataset"]:
        raise StoreError(f"The checkpoint {checkpoint.directory} is of another data set; resume with the same one.")
    wanted = identity["config"]
    stored = _settings(checkpoint.state["config"], f"the checkpoint {checkpoint.directory}")
    for name in sorted({*stored, *wanted}):
        if stored.get(name) != wanted.get(name):
            raise StoreError(
                f"The checkpoint {checkpoint.directory} was made with {name} = {stored.get(name)}, not {wanted.get(name)}; "
                f"resume with the same configuration, or begin again with overwrite."
            )


def settings_that_matter(config: TrainConfig) -> dict[str, Any]:
    """The dotted settings that a resumed run must have as its checkpoint: those that change what is learned."""
    return {key: value for key, value in config.flat().items() if not _is_free_to_differ(key)}


def _is_free_to_differ(setting: str) -> bool:
    """Whether a resumed run may have a dotted setting otherwise than its checkpoint: it does not change what is learned."""
    free = ("device", "index", "keep_bytes", "label_vectors.memory", "tensorboard", "tile_bytes", "token_cache")
    return setting in free or setting.startswith("checkpoint.")


def _settings(stored: dict[str, Any], source: str) -> dict[str, Any]:
    """The dotted settings of a checkpoint; those of older versions stand in nested sections."""
    nested = any(isinstance(value, dict) for value in stored.values())
    return settings_that_matter(TrainConfig.from_mapping(stored, source=source)) if nested else stored
