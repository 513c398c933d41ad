"""What the table soak holds answers against: a plain dictionary of the labels, at each of their latest versions."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from filters import CHUNK

__all__ = ["SHELVES", "Oracle", "Version", "shelf_of"]

SHELVES = 20
"""Labels have a column `shelf`, by which some searches ask for a twentieth of them."""
KEPT_CHANGES = 512
"""The latest changes, which can be undone for a search that began before them."""

Embeddings = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Version = tuple[int, int]
"""How often the run was loaded again, and the number of the labels' version since then: a later version is greater."""


def shelf_of(uid: str) -> int:
    """The value of the column `shelf`; -1 for a uid that no label ever had."""
    number = uid.removeprefix("label-")
    return int(number) % SHELVES if number.isdecimal() else -1


@dataclass(frozen=True)
class _Changed:
    """What labels were before a change that made a version: the row of each uid, None where it was not there."""

    version: Version
    before: Mapping[str, int | None]


class Oracle:
    """The labels by uid, each with the row of its text and its vector in a matrix that never changes.

    vectors: float32 [T, D], of texts. A change is told before the retriever makes it, so that no search sees a version that is
    not known here; the versions before can be asked for as long as KEPT_CHANGES later ones are remembered.
    """

    def __init__(self, vectors: Embeddings, labels: Mapping[str, int]) -> None:
        self.vectors = vectors
        self._shelves: list[dict[str, int]] = [{} for _ in range(SHELVES)]
        for uid, row in labels.items():
            self._shelves[shelf_of(uid)][uid] = row
        self._changes: deque[_Changed] = deque(maxlen=KEPT_CHANGES)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of labels."""
        return sum(map(len, self._shelves))

    def change(self, version: Version, after: Mapping[str, int | None]) -> None:
        """Labels that a version has new or other texts of, by row, or, for None, no more."""
        with self._lock:
            before = {uid: self._shelves[shelf_of(uid)].get(uid) for uid in after}
            self._changes.append(_Changed(version, before))
            for uid, row in after.items():
                if row is None:
                    del self._shelves[shelf_of(uid)][uid]
                else:
                    self._shelves[shelf_of(uid)][uid] = row

    def labels(self) -> dict[str, int]:
        """All labels as they are now."""
        with self._lock:
            return {uid: row for shelf in self._shelves for uid, row in shelf.items()}

    def rows(self, uids: npt.NDArray[np.object_], version: Version) -> Rows:
        """The row of each uid at a version, of any shape; -1 for one that was not there then, or None."""
        with self._lock:
            undone = self._undone(version)
            rows = [self._row(uid, undone) for uid in uids.ravel().tolist()]
        return np.array([-1 if row is None else row for row in rows], np.int64).reshape(uids.shape)

    def best(self, queries: Embeddings, k: int, version: Version, shelf: int | None = None) -> Embeddings:
        """The k highest scores of each query with the labels of a version, or those of one shelf: [n, k], best first."""
        with self._lock:
            undone = self._undone(version)
            shelves = self._shelves if shelf is None else [self._shelves[shelf]]
            rows = np.concatenate([np.fromiter(one.values(), np.int64, len(one)) for one in shelves])
            counts = np.bincount(rows, minlength=len(self.vectors))
            for uid, before in undone.items():
                if shelf is not None and shelf_of(uid) != shelf:
                    continue
                now = self._shelves[shelf_of(uid)].get(uid)
                if now is not None:
                    counts[now] -= 1
                if before is not None:
                    counts[before] += 1
        return self._best(queries, k, counts)

    def _row(self, uid: str | None, undone: Mapping[str, int | None]) -> int | None:
        if uid is None or shelf_of(uid) < 0:
            return None
        return undone[uid] if uid in undone else self._shelves[shelf_of(uid)].get(uid)

    def _undone(self, version: Version) -> dict[str, int | None]:
        """What the labels of later changes were at a version."""
        undone: dict[str, int | None] = {}
        for change in reversed(self._changes):
            if change.version <= version:
                return undone
            undone.update(change.before)
        if len(self._changes) == KEPT_CHANGES:
            raise RuntimeError(f"The version {version} is more than {KEPT_CHANGES} changes old.")
        return undone

    def _best(self, queries: Embeddings, k: int, counts: Rows) -> Embeddings:
        """counts: how many labels have each text."""
        best = np.full((len(queries), k), -np.inf, np.float32)
        for first in range(0, len(counts), CHUNK):
            there = counts[first : first + CHUNK]
            rows = np.repeat(np.arange(first, first + len(there)), np.minimum(there, k))
            both = np.concatenate([best, queries @ self.vectors[rows].T], axis=1)
            best = np.partition(both, -k, axis=1)[:, -k:]
        return -np.sort(-best, axis=1)
