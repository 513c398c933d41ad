"""The labels of a retriever as they are now: one version after the other, by changes that wait for each other."""

from __future__ import annotations

import threading
from dataclasses import replace

from xmc.kernels.forks import renew_in_children
from xmc.search.changes import Change, Compacted
from xmc.search.labels import LabelVersion

__all__ = ["LabelStore"]


class LabelStore:
    """The version of the labels that is valid now. Any number of threads may read it while one changes it.

    changing: the lock under which changes wait for each other; hold it to look at a version and change it.
    """

    def __init__(self, version: LabelVersion) -> None:
        self.renew_locks()
        renew_in_children(self)
        self._version = version

    def renew_locks(self) -> None:
        """See xmc.kernels.forks.Renewable."""
        self.changing = threading.RLock()

    @property
    def version(self) -> LabelVersion:
        """The labels now; a search that reads it once sees all of a change or nothing of it."""
        return self._version

    def apply(self, change: Change) -> None:
        """Make a change, and forget removed labels where they have become too many; no search sees what is between."""
        with self.changing:
            version = change(self._version)
            self.use(Compacted()(version) if version.index.wants_compaction else version)

    def use(self, version: LabelVersion) -> None:
        """Replace the version by one of the same labels, such as one with another index."""
        with self.changing:
            self._version = replace(version, number=self._version.number + 1)
