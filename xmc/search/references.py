"""A run directory as what stands for a model in other processes: which run, and whether the model is still what it holds."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from xmc.encoders.precision import Precision
from xmc.errors import StoreError
from xmc.search.labels import LabelVersion
from xmc.search.run import Run
from xmc.search.run_directory import RunDirectory

__all__ = ["RunReference", "SavedState", "held_weakly"]

_GONE = object()


@dataclass(frozen=True)
class RunReference:
    """A run by its directory, what was in it, and where it is to be opened.

    directory: absolute; it must lead to the same run in all processes. fingerprint: see RunDirectory.
    device, precision: see `Retriever.load`.
    """

    directory: str
    fingerprint: str
    device: str | tuple[str, ...] = "auto"
    precision: Precision | None = None

    @classmethod
    def from_directory(
        cls, directory: str | Path, fingerprint: str, device: str | Sequence[str], precision: Precision | None = None
    ) -> RunReference:
        """To a directory named from the present working directory."""
        placed = device if isinstance(device, str) else tuple(device)
        return cls(str(Path(directory).absolute()), fingerprint, placed, precision)

    def is_there(self) -> bool:
        """Whether the directory still holds the run; its files are not looked at."""
        try:
            return RunDirectory(self.directory).fingerprint == self.fingerprint
        except StoreError:
            return False

    def read(self) -> Run:
        """The run, verified when it is first read; a process that reads the same run again gets the same model and labels.

        Raises StoreError where the directory is gone, or holds another run than it did.
        """
        try:
            found = RunDirectory(self.directory).fingerprint
            run = _read(self) if found == self.fingerprint else None
        except StoreError as error:
            raise StoreError(
                f"A retriever that was pickled is opened from its run directory, which cannot be read here: {error} Keep the "
                f"directory until all processes are done with it, and name one that all of them see by the same path."
            ) from error
        if run is None or run.fingerprint != self.fingerprint:
            raise StoreError(
                f"{self.directory} holds another run than when the retriever was pickled. Pickle it again, or save the "
                f"other run elsewhere."
            )
        return run


@lru_cache(maxsize=1)  # tasks of a worker come one after the other, each with the same pickled retriever
def _read(reference: RunReference) -> Run:
    return RunDirectory(reference.directory).read(reference.device, reference.precision)


class SavedState:
    """What a model was made of when it was saved or loaded, by name, and the run that holds it.

    Parts are compared by identity, for those of a retriever never change, but are replaced; they are held weakly, so that an
    index that was replaced takes no memory. labels: as they were then, without what searches them.
    """

    def __init__(self, reference: RunReference, parts: Mapping[str, Any], files: Mapping[str, str]) -> None:
        """parts: among them the "model", whose weights do change, as torch counts them: not through `.data` or NumPy.

        files: SHA-256 of the run's files, by name.
        """
        self.reference, self.files = reference, files
        labels: LabelVersion = parts["labels and index"]
        self.labels = labels.with_index(replace(labels.index, engine=None))
        self._parts = {name: held_weakly(part) for name, part in parts.items()}
        self._changes = changes_of_weights(parts["model"])

    def changed(self, parts: Mapping[str, Any]) -> list[str]:
        """The names of the parts that are others by now."""
        names = [name for name, held in self._parts.items() if held() is not parts[name]]
        if "model" not in names and changes_of_weights(parts["model"]) != self._changes:
            names.append("model")
        return names

    def is_of(self, directory: str | Path) -> bool:
        """Whether it was loaded from this directory, or saved to it."""
        return Path(directory).resolve() == Path(self.reference.directory).resolve()

    def require_unchanged(self, parts: Mapping[str, Any]) -> RunReference:
        """The reference; StoreError where it no longer stands for these parts."""
        changed = self.changed(parts)
        directory = self.reference.directory
        if changed:
            raise StoreError(
                f"The retriever is pickled by reference to its run directory {directory}, from which it differs by now in: "
                f"{', '.join(changed)}. Save it first: retriever.save(DIRECTORY)."
            )
        if not self.reference.is_there():
            raise StoreError(
                f"The retriever is pickled by reference to its run directory {directory}, which was removed or written anew "
                f"since. Save it first: retriever.save(DIRECTORY)."
            )
        return self.reference


def held_weakly(part: Any) -> Callable[[], Any]:
    """What gives a part as long as somebody else holds it, and then an object that is no part; what cannot be held so stays."""
    try:
        reference = weakref.ref(part)
    except TypeError:
        return lambda: part

    def held() -> Any:
        found = reference()
        return _GONE if found is None else found

    return held


def changes_of_weights(model: Any) -> int:
    """How often the tensors of a model were changed in place."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(int(tensor._version) for tensor in tensors if not tensor.is_inference())
