"""The run that a server answers from: opened beside the requests, and taken over where another takes its place."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmc.errors import InputError, XMCError
from xmc.search.retriever import Retriever
from xmc.search.run_directory import RunDirectory
from xmc.serve.answering import answers_as_json, embeddings_as_json, predicted
from xmc.serve.batching import Asked
from xmc.serve.bodies import EmbedBody
from xmc.serve.changes import LabelChanges
from xmc.serve.failures import Refusal, refusal_of
from xmc.serve.metrics import ServerMetrics
from xmc.storage.directories import read_unreplaced
from xmc.storage.manifests import MANIFEST

__all__ = ["OpenRun", "ServedRun"]

LOOKED_EVERY = 1.0
"""Seconds between two looks at the run directory's manifest."""
SETTLED_AFTER = 0.5
"""Seconds after which the journal tells of a run directory that a process of the same server has written."""
logger = logging.getLogger("xmc.serve")


@dataclass(frozen=True)
class OpenRun:
    """A run that was opened: what answers, its changes, and by what its directory is known."""

    retriever: Retriever
    changes: LabelChanges
    identity: tuple[int, ...]


class ServedRun:
    """Answers batches from a run directory, and goes over to the run that takes its place.

    A replaced run is opened beside the one that answers; batches that began end with the old one. One that cannot be opened is
    logged and counted, and the old one goes on.
    """

    def __init__(self, directory: Path, device: str = "auto", metrics: ServerMetrics | None = None) -> None:
        """Nothing is opened yet."""
        self.directory, self._device = directory, device
        self._metrics = metrics or ServerMetrics()
        self._now: OpenRun | None = None
        self._left: list[OpenRun] = []
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="xmc-takeover", daemon=True)

    @property
    def now(self) -> OpenRun:
        """The run that answers. Refusal (503) before it is opened."""
        if self._now is None:
            raise Refusal(503, "The run is still being opened; come again in a moment.")
        return self._now

    def require_open(self) -> None:
        """Raise Refusal (503) before the run is opened."""
        assert self.now

    def open(self) -> None:
        """Open the run, and look at its directory from now on. StoreError where it cannot be opened."""
        self._now = self._opened()
        self._say_labels(self._now)
        self._watcher.start()

    def answer(self, batch: Sequence[Asked]) -> list[bytes | Refusal]:
        """The response to each of some requests with the same key, from one version of the labels.

        A mistake in one request is its own: the others are answered.
        """
        try:
            return list(self._answer_together(batch))
        except InputError as error:
            if len(batch) == 1:
                return [refusal_of(error)]
            return [outcome for asked in batch for outcome in self.answer([asked])]
        except Exception as error:
            return [refusal_of(error)] * len(batch)

    def close(self) -> None:
        """Look no more at the directory, write the changes into it, and close them; for when no batch is under way."""
        self._stop.set()
        if self._watcher.is_alive():
            self._watcher.join()
        if self._now is not None:
            self._compact(self._now.changes)
        for opened in [*self._left, *([] if self._now is None else [self._now])]:
            opened.changes.close()

    def _answer_together(self, batch: Sequence[Asked]) -> list[bytes]:
        opened = self.now
        while self._left:
            self._left.pop().changes.close()  # its last batch is over: batches are answered by this thread alone
        opened.changes.catch_up()
        bodies: list[Any] = [asked.content for asked in batch]
        if isinstance(bodies[0], EmbedBody):
            return embeddings_as_json(opened.retriever, bodies)
        answer = predicted(opened.retriever, bodies)
        return answers_as_json(answer, [asked.size for asked in batch], opened.changes.version_of(answer.version))

    def _opened(self) -> OpenRun:
        """The run with all changes, even where another process writes them into it meanwhile."""
        return read_unreplaced(self.directory, self._opened_once)

    def _opened_once(self) -> OpenRun:
        identity = _identity(self.directory)
        retriever = Retriever.load(self.directory, self._device)
        changes = LabelChanges(self.directory, retriever)
        retriever.predict(["warm up"], 1)  # what the first search compiles or allocates is there before requests come
        return OpenRun(retriever, changes, identity)

    def _watch(self) -> None:
        """Look at the directory now and then, and take over what takes its place; write many changes into it."""
        known = self.now.identity
        while not self._stop.wait(LOOKED_EVERY):
            changes = self.now.changes
            if changes.wants_compaction:
                self._compact(changes)
            self._say_labels(self.now)
            found = _identity(self.directory)
            if found == known:
                continue
            known = found
            try:
                if self._is_own(changes):
                    continue
                taken = self._opened()
            except (XMCError, OSError) as error:
                logger.error("the run that took the place of %s is left aside: %s", self.directory, error)
                self._metrics.takeovers.labels("refused").inc()
                continue
            except Exception:
                logger.exception("the run that took the place of %s is left aside", self.directory)
                self._metrics.takeovers.labels("refused").inc()
                continue
            known = taken.identity
            self._take_over(taken)

    def _is_own(self, changes: LabelChanges) -> bool:
        """Whether a process of this server has written the directory, with changes that are known; StoreError for no run."""
        if changes.holds(RunDirectory(self.directory).fingerprint):
            return True
        self._stop.wait(SETTLED_AFTER)
        return changes.holds(RunDirectory(self.directory).fingerprint)

    def _compact(self, changes: LabelChanges) -> None:
        """Write the changes into the run. Where that cannot be they stay in the journal, where nothing of them is lost."""
        try:
            changes.compact()
        except XMCError as error:
            logger.warning("the changes stay in the journal for now: %s", error)

    def _take_over(self, taken: OpenRun) -> None:
        before = self.now
        self._now = taken
        self._left.append(before)
        self._say_labels(taken)
        self._metrics.takeovers.labels("taken").inc()
        logger.info("answering from the run that took the place of %s: %r", self.directory, taken.retriever)

    def _say_labels(self, opened: OpenRun) -> None:
        self._metrics.labels.set(len(opened.retriever.labels))
        self._metrics.version.set(opened.changes.version)


def _identity(directory: Path) -> tuple[int, ...]:
    """What tells the run in a directory from another one without reading it; () where there is none."""
    try:
        found = (directory / MANIFEST).stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
