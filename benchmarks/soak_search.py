"""The threads of the table soak that search, and hold every answer against the oracle."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from filters import EQUAL
from pyarrow import compute as pc
from soak_corpus import Corpus
from soak_oracle import SHELVES, Oracle, Version, shelf_of

from xmc.search.retriever import Retriever

__all__ = ["K", "Searches", "Seen", "Serving"]

K = 10
BATCH = 16
"""Queries of half of the searches; the others are of one."""
DIFFERENT = 1e-4
"""Scores that differ by more are not those of the same vectors."""
RECENT = 200
"""Remembered queries that are asked again."""
CHECKED = 4
"""Of the queries of a search that is compared with all labels."""

Embeddings = npt.NDArray[np.float32]


class Serving:
    """The retriever that is searched, which a loaded one may replace; both stay what they are for searches under way."""

    def __init__(self, generation: int, retriever: Retriever, plain: Retriever) -> None:
        self.now = (generation, retriever, plain)

    @classmethod
    def first(cls, retriever: Retriever) -> Serving:
        """plain: over the same labels, without remembered queries, so that scores are those of vectors."""
        return cls(0, retriever, _plain(retriever))

    def replace(self, retriever: Retriever) -> None:
        """Search this one from now on."""
        self.now = (self.now[0] + 1, retriever, _plain(retriever))

    @property
    def retriever(self) -> Retriever:
        """The one that is changed."""
        return self.now[1]

    @property
    def version(self) -> Version:
        """Of the labels now."""
        generation, retriever, _ = self.now
        return generation, retriever.labels.number


def _plain(retriever: Retriever) -> Retriever:
    plain = copy.copy(retriever)
    plain.use_stages([])
    return plain


@dataclass
class Seen:
    """single: seconds of each search of one query. recalls: of each query that was compared with all labels."""

    searches: int = 0
    queries: int = 0
    single: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)


class Searches:
    """Threads that search until they are told to stop. violations: what was not as it must be, in words."""

    def __init__(self, corpus: Corpus, oracle: Oracle, serving: Serving, sizes: Any, seed: int) -> None:
        self._corpus, self._oracle, self._serving, self._sizes = corpus, oracle, serving, sizes
        self.violations: list[str] = []
        self._seen, self._lock, self._done, self._due = Seen(), threading.Lock(), threading.Event(), 0.0
        self._remembered: dict[str, tuple[str, Version]] = {}
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._search, args=([seed, number],), name=f"search-{number}")
            for number in range(sizes.threads)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for the searches under way."""
        self._done.set()
        for thread in self._threads:
            thread.join()
        self.require_alive()

    def require_alive(self) -> None:
        """Raise what a thread raised."""
        if self._failures:
            raise self._failures[0]

    def taken(self) -> Seen:
        """What was seen since the last call."""
        with self._lock:
            seen, self._seen = self._seen, Seen()
            return seen

    def violated(self, what: str) -> None:
        """Count what must not be."""
        with self._lock:
            self.violations.append(what)

    def remember(self, texts: Mapping[str, str], version: Version) -> None:
        """Ask some of these from now on: each must be answered by its label, by uid, at this version and later."""
        with self._lock:
            self._remembered |= {text: (uid, version) for text, uid in texts.items()}
            for text in list(self._remembered)[:-RECENT]:
                del self._remembered[text]

    def forget(self, uids: Iterable[str]) -> None:
        """Labels that are changed: what is remembered of them is not asked any more."""
        changed = set(uids)
        with self._lock:
            self._remembered = {text: known for text, known in self._remembered.items() if known[0] not in changed}

    def require_found(self, serving: Serving, added: Mapping[str, int]) -> None:
        """Labels that were just added: each is what a search for its own vector, and a search for it alone, finds."""
        _, _, plain = serving.now
        uids = list(added)[:BATCH]
        if not uids:
            return
        queries = self._corpus.vectors[[added[uid] for uid in uids]]
        alone = plain.answer(queries, 1, include=[[uid] for uid in uids])
        answer = plain.answer(queries, K)
        for uid, only, found, scores, query in zip(uids, alone.uids, answer.uids, answer.scores, queries, strict=True):
            if only[0] != uid:
                self.violated(f"{uid}, just added, is not found among itself alone, but {only[0]}")
            if uid not in found and not (scores >= float(query @ query) - DIFFERENT).all():
                self.violated(f"{uid}, just added, is not found by its own vector")

    def _search(self, seed: list[int]) -> None:
        choose = np.random.default_rng(seed)
        kinds = (self._by_text, self._by_vector, self._of_a_shelf, self._of_remembered)
        try:
            while not self._done.wait(self._sizes.pause):
                kinds[choose.choice(len(kinds), p=(0.4, 0.3, 0.1, 0.2))](choose)
        except BaseException as error:
            self._failures.append(error)

    def _by_text(self, choose: np.random.Generator) -> None:
        texts = [self._corpus.queries[row] for row in choose.integers(0, len(self._corpus.queries), _count(choose))]
        self._ask("text", texts, self._corpus.model.embed_queries(texts))

    def _by_vector(self, choose: np.random.Generator) -> None:
        rows = choose.integers(0, len(self._corpus.vectors), _count(choose))
        queries = np.array(self._corpus.vectors[rows])
        self._ask("vector", queries, queries)

    def _of_a_shelf(self, choose: np.random.Generator) -> None:
        rows, shelf = choose.integers(0, len(self._corpus.vectors), 1), int(choose.integers(0, SHELVES))
        queries = np.array(self._corpus.vectors[rows])
        self._ask("shelf", queries, queries, shelf)

    def _of_remembered(self, choose: np.random.Generator) -> None:
        with self._lock:
            known = list(self._remembered.items())
        if not known:
            return
        text, (uid, since) = known[int(choose.integers(0, len(known)))]
        generation, retriever, _ = self._serving.now
        answer = retriever.answer([text], K)
        version = (generation, answer.version)
        self._require_there("remembered", answer.uids, self._oracle.rows(answer.uids, version))
        with self._lock:
            still = self._remembered.get(text) == (uid, since)
        if still and version >= since and uid not in answer.uids[0]:
            self.violated(f"{uid} was remembered of a query that does not find it")
        self._count(1)

    def _ask(self, kind: str, asked: Any, queries: Embeddings, shelf: int | None = None) -> None:
        generation, _, plain = self._serving.now
        start = time.perf_counter()
        answer = plain.answer(asked, K, where=None if shelf is None else pc.field("shelf") == shelf)
        seconds = time.perf_counter() - start
        uids, version = answer.uids, (generation, answer.version)
        rows = self._oracle.rows(uids, version)
        self._require_there(kind, uids, rows)
        true = np.einsum("nd,nmd->nm", queries, self._oracle.vectors[np.maximum(rows, 0)])
        wrong = (abs(true - answer.scores) > DIFFERENT) & (rows >= 0)
        if wrong.any():
            place = tuple(np.argwhere(wrong)[0])
            self.violated(f"{kind}: {uids[place]} has the score {answer.scores[place]}, its vector {true[place]}")
        if (np.diff(answer.scores, axis=1) > EQUAL).any():
            self.violated(f"{kind}: scores are not in descending order")
        if shelf is not None and any(shelf_of(uid) != shelf for uid in uids.ravel().tolist() if uid is not None):
            self.violated(f"a label of another shelf than {shelf}: {uids.tolist()}")
        self._count(len(queries), seconds)
        if kind == "shelf" or self._is_due():
            self._compare(kind, queries[:CHECKED], true[:CHECKED], version, shelf)

    def _compare(self, kind: str, queries: Embeddings, true: Embeddings, version: Version, shelf: int | None) -> None:
        """With all labels; under a filter, which is answered exactly, the best must be found."""
        best = self._oracle.best(queries, K, version, shelf)
        recalls = (true >= best[:, -1:] - EQUAL).mean(axis=1)
        if shelf is None:
            with self._lock:
                self._seen.recalls += recalls.tolist()
        elif (recalls < 1).any():
            self.violated(f"of the labels of shelf {shelf} not the best were found, but {recalls[0]:.0%} of them")

    def _require_there(self, kind: str, uids: npt.NDArray[np.object_], rows: npt.NDArray[np.int64]) -> None:
        if (rows < 0).any():
            self.violated(f"{kind}: {uids[rows < 0][0]} was not there at the version that was searched")
        if any(len(set(found)) < K for found in uids.tolist()):
            self.violated(f"{kind}: a label comes twice, or there are fewer than {K}: {uids.tolist()}")

    def _count(self, queries: int, seconds: float | None = None) -> None:
        with self._lock:
            self._seen.searches += 1
            self._seen.queries += queries
            if queries == 1 and seconds is not None:
                self._seen.single.append(seconds)

    def _is_due(self) -> bool:
        with self._lock:
            due = time.monotonic() >= self._due
            if due:
                self._due = time.monotonic() + self._sizes.check_seconds
            return due


def _count(choose: np.random.Generator) -> int:
    return int(choose.choice([1, BATCH]))
