"""The labels of a retriever as they are now: one version after the other, by changes that wait for each other."""

from __future__ import annotations

import threading
from dataclasses import replace

from xmc.kernels.forks import renew_in_children
from xmc.search.changes import Change, Compacted, number_of_rows
from xmc.search.labels import LabelVersion

__all__ = ["LabelStore"]

KEPT_AT_LEAST = 100_000
"""Rows of changes that are kept; above them, as many as there are labels."""


class LabelStore:
    """The version of the labels that is valid now. Any number of threads may read it while one changes it.

    changing: the lock under which changes wait for each other; hold it to look at a version and change it.
    """

    def __init__(self, version: LabelVersion) -> None:
        self.renew_locks()
        renew_in_children(self)
        self._version = version
        self.begin_changes()

    def begin_changes(self) -> None:
        """Keep changes from now on, and forget those before: the labels are as they were read or saved."""
        self._changes: list[Change] | None = []
        self._rows_changed = 0

    def keep_no_changes(self) -> None:
        """Keep none any more; for labels that change without end and are kept elsewhere."""
        self._changes = None

    @property
    def changes(self) -> list[Change] | None:
        """What `apply` made since `begin_changes`, to be made again on other labels; None where it is too much to be kept."""
        return self._changes

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
            if self._changes is not None:
                self._changes.append(change)
                self._rows_changed += number_of_rows(change)
                if self._rows_changed > max(KEPT_AT_LEAST, len(version)):
                    self._changes = None

    def use(self, version: LabelVersion) -> None:
        """Replace the version by one of the same labels, such as one with another index."""
        with self.changing:
            self._version = replace(version, number=self._version.number + 1)
