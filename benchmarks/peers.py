"""Linear peers on TF-IDF features: omikuji and napkinXC. To run, each needs scikit-learn and its own package."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from xmc.data.dataset import Dataset
from xmc.metrics import NO_PREDICTION

__all__ = ["NapkinxcTree", "OmikujiBonsai"]

Predictions = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
Pairs = Sequence[tuple[int, float]]


class TfidfPeer(ABC):
    """A peer that reads TF-IDF rows: words and pairs of words, at most 200,000 features, sublinear, of unit length."""

    name: str
    packages: tuple[str, ...]

    @classmethod
    def missing(cls) -> str | None:
        """The command that installs what the peer needs, or None where it is installed."""
        modules = {"scikit-learn": "sklearn"}
        absent = [name for name in cls.packages if importlib.util.find_spec(modules.get(name, name)) is None]
        return f"pip install {' '.join(absent)}" if absent else None

    def train(self, data: Dataset, seed: int) -> float:
        """Fit TF-IDF and the model; seconds of both, without handing the data over in a file."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        training = data.split("train")
        texts = training.texts.to_pylist()
        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), max_features=200_000, sublinear_tf=True, dtype=np.float32)
        start = time.perf_counter()
        features = csr_matrix(self.vectorizer.fit_transform(texts))
        seconds = time.perf_counter() - start
        features.sort_indices()
        with _silenced():
            return seconds + self.fit(features, training.positives, seed)

    def predict(self, texts: Sequence[str], k: int) -> Predictions:
        """Label rows int64 [n, k], padded with NO_PREDICTION, and scores float32 [n, k], from texts."""
        features = csr_matrix(self.vectorizer.transform(texts))
        features.sort_indices()
        labels = np.full((len(texts), k), NO_PREDICTION, np.int64)
        scores = np.zeros((len(texts), k), np.float32)
        with _silenced():
            ranked = self.rank(features, k)
        for row, pairs in enumerate(ranked):
            if pairs:
                labels[row, : len(pairs)], scores[row, : len(pairs)] = zip(*pairs, strict=True)
        return labels, scores

    @abstractmethod
    def fit(self, features: csr_matrix, positives: csr_matrix, seed: int) -> float:
        """Train on features [n, F] and positives [n, L]; seconds."""

    @abstractmethod
    def rank(self, features: csr_matrix, k: int) -> Sequence[Pairs]:
        """For each row of features, up to k pairs (label, score)."""


class OmikujiBonsai(TfidfPeer):
    """Bonsai (Khandagale et al. 2020) by omikuji: three shallow trees of unbalanced 100-means clusters.

    omikuji has no seed. Its Python binding trains from a file and predicts one query at a time.
    """

    name = "omikuji Bonsai"
    packages = ("omikuji", "scikit-learn")

    def fit(self, features: csr_matrix, positives: csr_matrix, seed: int) -> float:
        """Train from a temporary file; seconds of training and of omikuji's own reading."""
        import omikuji

        settings = omikuji.Model.default_hyper_param()
        settings.n_trees = 3
        settings.cluster_k = 100
        settings.cluster_balanced = False
        settings.max_depth = 3
        known = np.flatnonzero(np.diff(features.indptr))  # omikuji refuses a file in which a row has no features
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "train.txt"
            _write_sparse(file, features[known], positives[known])
            start = time.perf_counter()
            self.model: Any = omikuji.Model.train_on_data(str(file), settings)
            return time.perf_counter() - start

    def rank(self, features: csr_matrix, k: int) -> Sequence[Pairs]:
        """With the default beam of 10."""
        return [self.model.predict(_pairs(features, row), top_k=k) for row in range(features.shape[0])]


class NapkinxcTree(TfidfPeer):
    """The probabilistic label tree of napkinXC (Jasinska-Kobus et al. 2020), as it comes."""

    name = "napkinXC PLT"
    packages = ("napkinxc", "scikit-learn")

    def fit(self, features: csr_matrix, positives: csr_matrix, seed: int) -> float:
        """Train; seconds, with loading the model that napkinXC writes."""
        from napkinxc.models import PLT

        labels = [row.tolist() for row in np.split(positives.indices, positives.indptr[1:-1])]
        self.directory = tempfile.TemporaryDirectory()
        start = time.perf_counter()
        self.model: Any = PLT(self.directory.name, seed=seed)
        self.model.fit(features, labels)
        self.model.load()
        return time.perf_counter() - start

    def rank(self, features: csr_matrix, k: int) -> Sequence[Pairs]:
        """All rows at once, on all cores."""
        ranked: list[Pairs] = self.model.predict_proba(features, top_k=k)
        return ranked


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Drop what is written to both output files of the process: the peers' native code prints a line for every query."""
    sys.stdout.flush()
    sys.stderr.flush()
    with Path(os.devnull).open("wb") as nowhere:
        kept = [(file, os.dup(file)) for file in (1, 2)]
        for file, _ in kept:
            os.dup2(nowhere.fileno(), file)
        try:
            yield
        finally:
            for file, copy in kept:
                os.dup2(copy, file)
                os.close(copy)


def _pairs(features: csr_matrix, row: int) -> Pairs:
    part = slice(features.indptr[row], features.indptr[row + 1])
    return list(zip(features.indices[part].tolist(), features.data[part].tolist(), strict=True))


def _write_sparse(file: Path, features: csr_matrix, positives: csr_matrix) -> None:
    """The XML Repository's sparse format: a line of sizes, then `label,label feature:value feature:value` a query."""
    with file.open("w", encoding="ascii") as stream:
        stream.write(f"{features.shape[0]} {features.shape[1]} {positives.shape[1]}\n")
        for row in range(features.shape[0]):
            labels = positives.indices[positives.indptr[row] : positives.indptr[row + 1]]
            values = " ".join(f"{feature}:{value:.7g}" for feature, value in _pairs(features, row))
            stream.write(f"{','.join(map(str, labels.tolist()))} {values}\n")
