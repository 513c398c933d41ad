"""Table soak: labels are added, updated, removed and remembered for hours while threads search, and saved and loaded again.

Every answer is held against a dictionary of the labels as they were at its version: no label that is not there, none twice,
none of another shelf than was asked for, no other score than that of its vector. A sample is compared with all labels scored
by numpy. A line each minute says what memory, recall, file descriptors and latency do; a violation ends with exit code 2.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from filters import EQUAL, quantile
from measurements import Measurement
from rich.console import Console
from soak_corpus import Corpus, small_corpus, title_corpus
from soak_oracle import Oracle, shelf_of
from soak_search import K, Searches, Serving
from soak_table import Minute, Verdict, heading, resources
from titles import CACHE

from xmc.errors import XMCError
from xmc.search.retriever import Retriever

__all__ = ["SIZES", "Sizes", "SoakError", "measure", "run"]

console = Console(soft_wrap=True)
Row = tuple[str, float, str]


class SoakError(XMCError):
    """What was found is not what must be."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    labels: held at the start; about as many stay. spare: share of further uids, which come and go. added, updated, removed,
    remembered: in a round of changes, which takes `round_seconds` with what is waited. save_seconds: the time between two
    saves; after every second one the run is loaded again and searched from then on. pause: of a searching thread between two
    searches. check_seconds: the time between two searches that are compared with all labels. row_seconds: of a line.
    """

    hours: float = 1.0
    labels: int = 1_000_000
    spare: float = 0.1
    added: int = 300
    updated: int = 100
    removed: int = 300
    remembered: int = 4
    round_seconds: float = 2.0
    save_seconds: float = 300.0
    threads: int = 2
    pause: float = 0.02
    check_seconds: float = 10.0
    row_seconds: float = 60.0


SIZES = Sizes()
SMALL = 8_000
"""Up to this number labels are those of wordnet-8k by an encoder that was not trained, which need no other data."""


def run(
    seed: int, methods: Sequence[str], hours: float = SIZES.hours, labels: int = SIZES.labels
) -> Iterator[list[Measurement]]:
    """Soak for hours over titles, or over few labels for a trial. SoakError for whatever is not as it must be."""
    sizes = replace(SIZES, hours=hours, labels=labels)
    if labels <= SMALL:
        sizes = replace(sizes, added=60, updated=20, removed=60, round_seconds=0.1, pause=0.0, check_seconds=0.2)
        sizes = replace(sizes, row_seconds=max(1.0, 360 * hours), save_seconds=max(0.5, 360 * hours))
    corpus = small_corpus(seed) if labels <= SMALL else title_corpus()
    measurements, verdict = measure(corpus, sizes, seed)
    yield measurements
    if not verdict.holds:
        raise SoakError(f"soak: {'; '.join(verdict.sentences)}")


def measure(corpus: Corpus, sizes: Sizes, seed: int) -> tuple[list[Measurement], Verdict]:
    """Change, save and load in this thread while others search; a line each minute."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="soak-") as folder:
        soak = _Soak(corpus, sizes, Path(folder) / "run", seed)
        try:
            soak.last()
        finally:
            soak.searches.stop()
    verdict = Verdict.of(soak.minutes, soak.searches.violations)
    for sentence in verdict.sentences:
        console.print(sentence, highlight=False, markup=False)
    rows = list(_measured(soak.minutes, soak.searches.violations))
    method = f"{corpus.design}, {sizes.labels:,} labels"
    return [Measurement("soak", method, *row, seed) for row in rows], verdict


@dataclass
class _Changes:
    """What this thread did in a minute."""

    count: int = 0
    seconds: list[float] = field(default_factory=list)
    saves: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)


class _Soak:
    """The thread that changes the labels."""

    def __init__(self, corpus: Corpus, sizes: Sizes, directory: Path, seed: int) -> None:
        self._corpus, self._sizes, self._directory = corpus, sizes, directory
        self._choose, self._number = np.random.default_rng(seed), 0
        count = int(sizes.labels * (1 + sizes.spare))
        first = self._choose.permutation(count)
        self._there = [f"label-{number}" for number in first[: sizes.labels]]
        self._gone = [f"label-{number}" for number in first[sizes.labels :]]
        rows = self._choose.integers(0, len(corpus.texts), sizes.labels).tolist()
        if sizes.labels <= len(corpus.texts):
            rows = self._choose.permutation(len(corpus.texts))[: sizes.labels].tolist()
        self._oracle = Oracle(corpus.vectors, dict(zip(self._there, rows, strict=True)))
        shelves = [shelf_of(uid) for uid in self._there]
        console.print(f"soak: {sizes.labels:,} labels, index {corpus.design}", highlight=False)
        start = time.perf_counter()
        retriever = corpus.retriever(self._there, rows, {"shelf": shelves}, sizes.remembered, self._choose)
        console.print(f"soak: made in {time.perf_counter() - start:.0f} s", highlight=False)
        self._serving = Serving.first(retriever)
        self.minutes: list[Minute] = []
        self._changes = _Changes()
        self.searches = Searches(corpus, self._oracle, self._serving, sizes, seed)

    def last(self) -> None:
        """All rounds."""
        sizes, start = self._sizes, time.monotonic()
        next_row, next_save, saves = start + sizes.row_seconds, start + sizes.save_seconds, 0
        console.print(heading(), highlight=False)
        while (began := time.monotonic()) < start + 3600 * sizes.hours:
            self._round()
            if time.monotonic() >= next_save:
                saves += 1
                self._save(load=saves % 2 == 0)
                next_save = time.monotonic() + sizes.save_seconds
            if time.monotonic() >= next_row:
                self._row(time.monotonic() - start)
                next_row = max(next_row, time.monotonic() - sizes.row_seconds) + sizes.row_seconds
            self.searches.require_alive()
            time.sleep(max(0.0, sizes.round_seconds - (time.monotonic() - began)))
        self._save(load=True)
        self._row(time.monotonic() - start)

    def _round(self) -> None:
        """A change of each kind, or all of them as one; then what was added must be found."""
        sizes, retriever = self._sizes, self._serving.retriever
        added = {uid: self._text() for uid in self._drawn(self._gone, sizes.added)}
        updated = {uid: self._text() for uid in self._drawn(self._there, sizes.updated)}
        removed = self._drawn(self._there, sizes.removed)
        texts = self._corpus.texts
        self._number += 1
        if self._number % 2:
            self._apply(added, lambda: self._add(retriever, added))
            self._apply(
                updated,
                lambda: retriever.update_labels([texts[row] for row in updated.values()], list(updated), score="raw"),
            )
            self._apply(dict.fromkeys(removed), lambda: retriever.remove_labels(removed))
        else:
            add = [{"uid": uid, "text": texts[row], "shelf": shelf_of(uid)} for uid, row in added.items()]
            update = [{"uid": uid, "text": texts[row]} for uid, row in updated.items()]
            everything = {**added, **updated, **dict.fromkeys(removed)}
            self._apply(everything, lambda: retriever.change_labels(add, update, removed, score="raw"))
        self._there += [*added, *updated]
        self._gone += removed
        remembered = self._remembered()
        self._apply({}, lambda: retriever.remember(list(remembered), [[uid] for uid in remembered.values()]))
        self.searches.remember(remembered, self._serving.version)
        self.searches.require_found(self._serving, added)

    def _add(self, retriever: Retriever, added: dict[str, int]) -> None:
        texts = [self._corpus.texts[row] for row in added.values()]
        retriever.add_labels(texts, list(added), {"shelf": [shelf_of(uid) for uid in added]}, score="raw")

    def _apply(self, after: dict[str, Any], change: Any) -> None:
        """Make a change of the retriever of which the oracle knows before."""
        generation, number = self._serving.version
        self._oracle.change((generation, number + 1), after)
        self.searches.forget(after)
        start = time.perf_counter()
        change()
        self._changes.seconds.append(time.perf_counter() - start)
        self._changes.count += 1
        if self._serving.version != (generation, number + 1):
            self.searches.violated(f"a change made the version {self._serving.version}, not {(generation, number + 1)}")

    def _save(self, *, load: bool) -> None:
        start = time.perf_counter()
        self._serving.retriever.save(self._directory, overwrite=True)
        self._changes.saves.append(time.perf_counter() - start)
        if load:
            start = time.perf_counter()
            loaded = Retriever.load(self._directory, "cpu")
            self._changes.loads.append(time.perf_counter() - start)
            for difference in self._differences(loaded):
                self.searches.violated(f"after loading, {difference}")
            self._serving.replace(loaded)
            gc.collect()

    def _differences(self, loaded: Retriever) -> Iterator[str]:
        """How a loaded run differs from the oracle, and from the one that was saved."""
        labels, expected = loaded.labels, self._oracle.labels()
        uids = labels.uids.to_pylist()
        if len(uids) != len(expected) or set(uids) != expected.keys():
            yield f"{len(uids):,} labels are there, not the {len(expected):,} of the oracle"
            return
        rows = np.array([expected[uid] for uid in uids])
        wrong = 0
        for first in range(0, len(rows), 65_536):
            some = slice(first, first + 65_536)
            found = labels.index.blocks.take(labels.living[some])
            wrong += int((abs(found - self._corpus.vectors[rows[some]]).max(axis=1) > EQUAL).sum())
        if wrong:
            yield f"{wrong:,} labels have another vector"
        texts = self._corpus.texts
        wrong = sum(text != texts[row] for text, row in zip(labels.texts.to_pylist(), rows.tolist(), strict=True))
        if wrong:
            yield f"{wrong:,} labels have another text"
        wrong = sum(shelf != shelf_of(uid) for shelf, uid in zip(labels.table["shelf"].to_pylist(), uids, strict=True))
        if wrong:
            yield f"{wrong:,} labels have another shelf"
        before, after = self._serving.retriever.memory, loaded.memory
        if before is None or after is None or before.fingerprint != after.fingerprint:
            yield "the memory of queries is another one"

    def _remembered(self) -> dict[str, str]:
        """Texts to remember, each with the uid of a label that is there."""
        rows = self._choose.integers(0, len(self._corpus.texts), self._sizes.remembered).tolist()
        chosen = self._choose.integers(0, len(self._there), len(rows)).tolist()
        return {
            f"{self._corpus.texts[row]} {self._number}": self._there[place]
            for row, place in zip(rows, chosen, strict=True)
        }

    def _text(self) -> int:
        return int(self._choose.integers(0, len(self._corpus.texts)))

    def _drawn(self, uids: list[str], count: int) -> list[str]:
        """Some uids, which are taken out of the list."""
        drawn = []
        for _ in range(min(count, len(uids))):
            place = int(self._choose.integers(0, len(uids)))
            uids[place], uids[-1] = uids[-1], uids[place]
            drawn.append(uids.pop())
        return drawn

    def _row(self, seconds: float) -> None:
        retriever, changes, self._changes = self._serving.retriever, self._changes, _Changes()
        minute = Minute(
            minutes=seconds / 60,
            labels=len(retriever),
            remembered=len(retriever.memory or ()),
            changes=changes.count,
            longest_change=max(changes.seconds, default=0.0),
            saves=tuple(changes.saves),
            loads=tuple(changes.loads),
            seen=self.searches.taken(),
            violations=len(self.searches.violations),
            **resources(),
        )
        self.minutes.append(minute)
        console.print(minute.line(), highlight=False)


def _measured(minutes: list[Minute], violations: Sequence[str]) -> Iterator[Row]:
    """The whole of it in rows."""
    third = max(1, len(minutes) // 3)
    yield "time", minutes[-1].minutes / 60, "hours"
    yield "changes", sum(one.changes for one in minutes), "changes"
    yield "saves", sum(len(one.saves) for one in minutes), "saves"
    yield "loads", sum(len(one.loads) for one in minutes), "loads"
    yield "searches, all checked", sum(one.seen.searches for one in minutes), "searches"
    yield "queries compared with all labels", sum(len(one.seen.recalls) for one in minutes), "queries"
    yield "violations", len(violations), "violations"
    for name, some in (("first", minutes[:third]), ("last", minutes[-third:])):
        recalls = np.concatenate([one.seen.recalls for one in some])
        single = [seconds for one in some for seconds in one.seen.single]
        yield f"recall@{K}, {name} third", 100 * float(recalls.mean()) if len(recalls) else float("nan"), "percent"
        yield f"p50 of one query, {name} third", quantile(single, 0.5), "ms"
        yield f"p99 of one query, {name} third", quantile(single, 0.99), "ms"
        yield f"memory of its own (RssAnon), {name} third", float(np.median([one.anonymous for one in some])), "MiB"
        yield f"file descriptors, {name} third", float(np.median([one.descriptors for one in some])), "descriptors"
    yield "memory (VmHWM)", max(one.peak for one in minutes), "MiB"
