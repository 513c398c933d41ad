"""What a label index is: maximum inner product search over label embeddings that carry the user's own ids."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from xmc.errors import ConfigError, InputError, StoreError
from xmc.indexes.blocks import EmbeddingBlocks, Embeddings
from xmc.indexes.checks import require_count, require_matrix
from xmc.indexes.identifiers import Ids, RowLookup, as_ids, type_name
from xmc.indexes.selection import Labels, PerQuery
from xmc.indexes.snapshot import Engine, Snapshot
from xmc.indexes.stored import read_labels
from xmc.storage.arrow import write_embeddings
from xmc.storage.directories import MANIFEST, atomic_directory, read_manifest

__all__ = ["LabelIndex"]

TAIL = 8_192
"""Labels added since the engine was last extended are searched exactly, until they are more than this."""
COMPACT_SHARE = 0.25
"""Removed labels are left out of results, and forgotten when they are more than this share of all rows."""


class LabelIndex(ABC):
    """Top-k labels by inner product. Ids are all int64 or all strings, and unique; labels may be added and removed.

    Any number of threads may search while one changes the index: a search sees all of a change or nothing of it, and never
    waits. Changes wait for each other. `snapshot` gives what the index holds at one moment.

    An index supplies an engine that searches rows; ids, embeddings, filters, changes and storage are the same for all.
    """

    kind: ClassVar[str]

    def __init__(self, dimension: int, rescore: int = 0) -> None:
        self.dimension, self.rescore = dimension, require_count(rescore, "rescore")
        self.measured: dict[str, Any] = {}  # what tuning measured of this design
        self._changing = threading.RLock()
        self._snapshot = self._fresh(
            EmbeddingBlocks([np.zeros((0, dimension), np.float32)]), np.zeros(0, np.int64), None, 0
        )

    @property
    def ids(self) -> Ids:
        """Of all labels, int64 or strings [L], in the order in which they came."""
        return self._snapshot.ids

    @property
    def embeddings(self) -> Embeddings:
        """Of all labels, float32 [L, D], in the order of `ids`."""
        return self._snapshot.embeddings

    def __len__(self) -> int:
        """Number of labels."""
        return len(self._snapshot)

    def snapshot(self) -> Snapshot:
        """What the index holds now: later changes do not show in it, and it can be searched as the index itself."""
        return self._snapshot

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        include: Labels | PerQuery | None = None,
        exclude: Labels | PerQuery | None = None,
        rescore: int | None = None,
        diversity: float = 0.0,
    ) -> tuple[Ids, Embeddings]:
        """The k best labels of each query [n, D]: ids [n, k'] and float32 scores [n, k'], best first, k' = min(k, labels).

        include, exclude: labels that alone, or never, may be returned: for all queries ids (a list, set or array) or a mask
            bool [labels] in the order of `ids`, or a list with one of these for each query. Ids that are not in the index
            are ignored. The search is right at any selectivity: where few labels are allowed each of them is scored.
        rescore: so many times k candidates are taken from the engine and ordered by their exact scores; 0 returns the
            engine's order and scores. By default what the index was made with.
        diversity: between 0, the best labels, and 1; trades score against likeness to the labels before it (maximal
            marginal relevance), chosen from five times k candidates. Scores then do not fall from left to right.

        Where fewer than k' labels may be returned for a query, its row ends with id -1 (or "") and score -inf.

        Raises InputError for another dimension, NaN or infinite queries, k < 0, and filters that do not fit.
        """
        return self._snapshot.search(queries, k, include=include, exclude=exclude, rescore=rescore, diversity=diversity)

    def build(self, embeddings: Embeddings, ids: Sequence[int | str] | Ids) -> None:
        """Replace the content by `embeddings` [L, D] float32, which must not change afterwards, with `ids` [L].

        Raises InputError for shapes that do not fit, NaN or infinite embeddings (with their rows), ids of mixed type or
        given twice, or too few labels for the index's design.
        """
        embeddings, new = self._checked(embeddings, ids)
        with self._changing:
            blocks = EmbeddingBlocks([embeddings])
            engine = self.engine_of(blocks) if len(new) else None
            self._snapshot = self._fresh(blocks, new, engine, self._snapshot.version + 1)

    def add(self, embeddings: Embeddings, ids: Sequence[int | str] | Ids) -> None:
        """Add labels; raises InputError as `build`, and for an id that is there already.

        An index that was never built is searched exactly until it has enough labels for its design.
        """
        embeddings, new = self._checked(embeddings, ids)
        if not len(new):
            return
        with self._changing:
            self._require(new, present=False)
            self._snapshot = self._appended(self._snapshot, embeddings, new)

    def remove(self, ids: Sequence[int | str] | Ids) -> None:
        """Remove labels; raises InputError for an id that is not there."""
        gone = list(dict.fromkeys(as_ids(ids).tolist()))
        if not gone:
            return
        with self._changing:
            self._require(gone, present=True)
            self._snapshot = self._compacted(self._removed(self._snapshot, gone), COMPACT_SHARE)

    def update(self, embeddings: Embeddings, ids: Sequence[int | str] | Ids) -> None:
        """Give labels new embeddings, in one step; they come last in the order of `ids`.

        Raises InputError as `build`, and for an id that is not there.
        """
        embeddings, new = self._checked(embeddings, ids)
        if not len(new):
            return
        with self._changing:
            self._require(new, present=True)
            without = self._removed(self._snapshot, new)
            self._snapshot = self._compacted(self._appended(without, embeddings, new), COMPACT_SHARE)

    def adopt(self, snapshot: Snapshot, engine: Engine | None = None) -> None:
        """Take over the labels of another index, with an engine over all its rows, or building one."""
        with self._changing:
            blocks = EmbeddingBlocks(
                [block for _, block in snapshot.blocks]
            )  # without the room that the other may fill
            engine = self.engine_of(blocks) if engine is None else engine
            version = self._snapshot.version + 1
            self._snapshot = replace(snapshot, version=version, blocks=blocks, engine=engine, rescore=self.rescore)

    def compact(self) -> None:
        """Forget removed labels, and extend the engine to all others; searches go on meanwhile."""
        with self._changing:
            self._snapshot = self._extended(self._compacted(self._snapshot, 0.0), 0)

    def save(self, directory: str | Path, source: str = "") -> None:
        """Write the index as a stored directory: whole or not at all. Removed labels are kept there until `compact`.

        source: a fingerprint of what the embeddings were made from, which `load` can demand.
        """
        snapshot = self._snapshot
        properties = {"index": self.kind, "dimension": self.dimension, "labels": len(snapshot), "source": source}
        covered = 0 if snapshot.engine is None else snapshot.engine.covered
        with atomic_directory(
            directory,
            "index",
            **properties,
            rescore=self.rescore,
            covered=covered,
            measured=self.measured,
            **self._settings(),
        ) as path:
            write_embeddings((block for _, block in snapshot.blocks), self.dimension, path / "embeddings.arrow")
            strings = snapshot.all_ids.dtype == object
            alive = np.ones(len(snapshot.all_ids), bool) if snapshot.alive is None else snapshot.alive
            table = pa.table(
                {"id": pa.array(snapshot.all_ids, pa.string() if strings else pa.int64()), "alive": pa.array(alive)}
            )
            with pa.OSFile(str(path / "ids.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            if snapshot.engine is not None:
                self._save(snapshot.engine, path)

    @classmethod
    def load(cls, directory: str | Path, source: str | None = None) -> LabelIndex:
        """Read an index written by `save`; embeddings stay on disk, memory-mapped, until they are needed.

        source: the fingerprint that the index must have been saved with.

        Raises StoreError, which names a file that is missing, truncated or changed, or both fingerprints.
        """
        directory = Path(directory)
        settings = read_manifest(directory, "index")["properties"]
        if settings.get("index") != cls.kind:
            raise StoreError(f"{directory} holds an index of the kind {settings.get('index')!r}, not {cls.kind!r}.")
        if source is not None and settings.get("source") != source:
            raise StoreError(
                f"{directory} indexes other embeddings: it was built from {settings.get('source') or 'unnamed ones'} "
                f"({settings.get('labels')} labels of dimension {settings.get('dimension')}), and {source} is asked "
                f"for. Index the labels again."
            )
        try:
            index = cls._restored(settings)
            index.measured, covered = dict(settings["measured"]), int(settings["covered"])
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise StoreError(f"{directory / MANIFEST} does not describe an index: {error!r}.") from error
        embeddings, ids, alive = read_labels(directory, index.dimension)
        engine = index._load(directory, covered) if covered else None
        snapshot = index._fresh(embeddings, ids, engine, 1)
        index._snapshot = snapshot if alive.all() else replace(snapshot, alive=alive)
        return index

    @abstractmethod
    def engine_of(self, embeddings: EmbeddingBlocks) -> Engine | None:
        """A new engine over all these rows; None where every search is exact. InputError for too few."""

    @abstractmethod
    def _grown(self, engine: Engine, embeddings: EmbeddingBlocks) -> Engine | None:
        """An engine over all these rows, of which `engine` covers the first; `engine` itself stays as it is."""

    def _recast(self, engine: Engine, embeddings: EmbeddingBlocks) -> Engine | None:
        """An engine over other rows, with what `engine` learned from its own; None where they are too few."""
        return None

    def _settings(self) -> dict[str, Any]:
        """JSON values from which `_restored` makes an empty index of the same design."""
        return {}

    @classmethod
    def _restored(cls, settings: dict[str, Any]) -> LabelIndex:
        return cls(int(settings["dimension"]), rescore=int(settings["rescore"]))

    def _save(self, engine: Engine, directory: Path) -> None:  # noqa: B027
        """Write the engine."""

    def _load(self, directory: Path, covered: int) -> Engine | None:
        """Read what `_save` wrote."""
        return None

    def _fresh(self, embeddings: EmbeddingBlocks, ids: Ids, engine: Engine | None, version: int) -> Snapshot:
        return Snapshot(version, ids, embeddings, None, RowLookup(ids), engine, self.rescore)

    def _appended(self, before: Snapshot, embeddings: Embeddings, new: Ids) -> Snapshot:
        all_ids: Ids = np.concatenate([before.all_ids, new]) if len(before.all_ids) else new
        alive = None if before.alive is None else np.concatenate([before.alive, np.ones(len(new), bool)])
        blocks = before.blocks.append(embeddings)
        lookup = before.lookup.with_rows(new, all_ids) if len(before.all_ids) else RowLookup(new)
        return self._extended(
            replace(before, version=before.version + 1, all_ids=all_ids, alive=alive, blocks=blocks, lookup=lookup),
            TAIL,
        )

    def _removed(self, before: Snapshot, gone: Sequence[int | str] | Ids) -> Snapshot:
        alive = np.ones(len(before.all_ids), bool) if before.alive is None else before.alive.copy()
        alive[before.rows(gone)] = False
        return replace(before, version=before.version + 1, alive=alive)

    def _extended(self, before: Snapshot, tail: int) -> Snapshot:
        """With an engine that covers all rows, where more than `tail` are not."""
        engine, rows = before.engine, len(before.all_ids)
        if rows - (0 if engine is None else engine.covered) <= tail:
            return before
        if engine is not None:
            return replace(before, engine=self._grown(engine, before.blocks))
        with contextlib.suppress(InputError):  # still too few for the design
            return replace(before, engine=self.engine_of(before.blocks))
        return before

    def _compacted(self, before: Snapshot, share: float) -> Snapshot:
        """Without removed rows, where they are more than a share of all."""
        dead = len(before.all_ids) - len(before)
        if dead <= share * len(before.all_ids):
            return before
        after = self._fresh(EmbeddingBlocks([before.embeddings]), before.ids, None, before.version + 1)
        engine = None if before.engine is None else self._recast(before.engine, after.blocks)
        return replace(after, engine=engine)

    def _checked(self, embeddings: Embeddings, ids: Sequence[int | str] | Ids) -> tuple[Embeddings, Ids]:
        embeddings = require_matrix(embeddings, self.dimension, "label embeddings")
        array = as_ids(ids)
        if len(array) != len(embeddings):
            raise InputError(f"{len(array)} ids were given for {len(embeddings)} label embeddings.")
        values, counts = np.unique(array, return_counts=True)
        if (counts > 1).any():
            raise InputError(f"The label id {values[counts > 1].tolist()[0]!r} is given more than once.")
        return embeddings, array

    def _require(self, ids: Sequence[int | str] | Ids, present: bool) -> None:
        """InputError where an id is there and should not be, or the other way round."""
        snapshot = self._snapshot
        if isinstance(ids, np.ndarray) and len(snapshot) and ids.dtype != snapshot.all_ids.dtype:
            raise InputError(
                f"New ids are of type {type_name(ids)}, those in the index of type {type_name(snapshot.all_ids)}."
            )
        wrong = np.flatnonzero((snapshot.rows(ids) >= 0) != present)
        if len(wrong):
            label = ids.tolist()[wrong[0]] if isinstance(ids, np.ndarray) else ids[wrong[0]]
            there = "is not in the index" if present else "is in the index already"
            raise InputError(f"The label id {label!r} {there} ({len(wrong)} such ids).")
