"""A scikit-learn estimator: texts and their labels in, labels of other texts out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from xmc.config import StaticConfig, TrainConfig
from xmc.data.dataset import Dataset
from xmc.errors import InputError, StoreError, missing_package
from xmc.indexes.checks import require_count
from xmc.interop.scikit_learn_targets import Target, read_texts
from xmc.search.retriever import Retriever
from xmc.search.run_directory import RunDirectory
from xmc.training.trainer import train

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.validation import check_consistent_length, check_is_fitted, check_random_state
except ImportError as error:
    raise missing_package("sklearn", "XMCClassifier is an estimator of scikit-learn", "scikit-learn") from error

__all__ = ["XMCClassifier"]

Labels: TypeAlias = npt.NDArray[Any]
Scores: TypeAlias = npt.NDArray[np.float32]

STEPS_AN_EPOCH = 8
"""Least number of steps of an epoch: few texts are trained on in smaller batches than the configuration's."""
TABLE_ROWS = (1 << 12, 1 << 18)
"""Least and largest number of rows of the static encoder's table."""
SECTION = "classifier"
"""Where metrics.json holds what a classifier is besides its run."""
COLUMN = "class"
"""The column of the label table that holds labels as they were given, with their type."""


class XMCClassifier(ClassifierMixin, BaseEstimator):
    """Texts to labels by `xmc.train` and a `Retriever`, as a scikit-learn estimator.

    Parameters
    ----------
    encoder: "static", or a directory with a transformer (see TransformerConfig.directory).
    epochs, learning_rate: as in TrainConfig, whose defaults they have.
    k: labels that `predict` gives each text of several labels; by default the mean number in training, rounded.
    label_texts: the texts of labels, by label, or a list in the order of `classes_`. By default a label's text is str(label).
    config: further keys of TrainConfig, nested as in a YAML file, such as {"encoder": {"dimension": 128}}.
    random_state: seeds training; the same int gives the same model.

    Attributes
    ----------
    classes_: the labels, sorted; of an indicator matrix its column numbers.
    retriever_: the trained Retriever, whose label rows are those of `classes_`.

    Training happens in a temporary directory, which is removed; `save` writes the run.

    >>> classifier = XMCClassifier(random_state=0).fit(["a red boat", "a red house", "green tea"], ["red", "red", "green"])
    >>> classifier.predict(["a red door"]).tolist()
    ['red']
    """

    def __init__(
        self,
        encoder: str = "static",
        *,
        epochs: int | None = None,
        learning_rate: float | None = None,
        k: int | None = None,
        label_texts: Mapping[Any, str] | Sequence[str] | None = None,
        config: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.encoder = encoder
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.k = k
        self.label_texts = label_texts
        self.config = config
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> XMCClassifier:
        """Train on texts [n] and their labels.

        y: a list of lists of labels (strings or ints), an indicator matrix [n, L] (array or sparse), or one label each [n].
        Nested lists are lists of labels, unless they hold 0 and 1 alone and repeat one, as an indicator matrix does. Raises
        InputError for texts or labels of another kind, ConfigError for a configuration that does not fit.
        """
        texts = read_texts(X)
        target = Target.read(y)
        check_consistent_length(texts, target.positives)
        if self.k is not None and require_count(self.k, "k") < 1:
            raise InputError(f"k must be at least 1, but is {self.k}.")
        seed = int(check_random_state(self.random_state).randint(2**31))
        dataset = Dataset.from_lists(
            "texts",
            self._texts_of(target.classes),
            {"train": (texts, target.rows())},
            label_uids=[str(label) for label in target.classes.tolist()],
        )
        with TemporaryDirectory(prefix="xmc-") as folder:
            result = train(dataset, self._training(texts, seed), Path(folder) / "run")
            if result.interrupted:
                raise KeyboardInterrupt
            self.retriever_ = Retriever.load(result.directory)
        self.target_ = target.kind
        self.k_ = 1 if target.kind == "single" else self.k or max(1, round(target.positives.nnz / len(texts)))
        self.classes_ = target.classes
        return self

    def predict(self, X: Any) -> Any:
        """The labels of texts: one each [n], or an indicator matrix [n, L] with the `k` best labels of each text.

        It is sparse where `fit` was given a sparse one, or lists of more than 1,000 different labels.
        """
        rows, _ = self._search(X, 1 if self._fitted_target() == "single" else self.k_)
        if self.target_ == "single":
            return self.classes_[rows[:, 0]]
        indptr = np.arange(len(rows) + 1) * rows.shape[1]
        indicator = csr_matrix((np.ones(rows.size, np.int64), rows.ravel(), indptr), (len(rows), len(self.classes_)))
        indicator.sort_indices()
        return indicator if self.target_ == "sparse" else indicator.toarray()

    def predict_topk(self, X: Any, k: int = 5) -> tuple[Labels, Scores]:
        """The k best labels [n, k'] of texts and their scores [n, k'], best first; k' = min(k, labels)."""
        rows, scores = self._search(X, k)
        return self.classes_[rows], scores

    def decision_function(self, X: Any) -> Scores:
        """The score of every label for each text, [n, L] in the order of `classes_`: a cosine, whose order alone has a meaning.

        -inf for a label that was removed. Of two classes, one label each, the second's less the first's, [n]. All n · L scores
        are held in memory.
        """
        target = self._fitted_target()
        labels = self.retriever_.labels
        rows = labels.rows_of_ids(np.arange(len(self.classes_)))  # labels that are updated come last
        scores: Scores = self.retriever_.embed_queries(read_texts(X)) @ labels.embeddings[rows].T
        scores[:, rows < 0] = -np.inf
        return scores[:, 1] - scores[:, 0] if target == "single" and scores.shape[1] == 2 else scores

    def score(self, X: Any, y: Any) -> float:
        """P@1, the share of texts whose best label is right: the accuracy, where texts have one label each.

        y: as in `fit`, and whatever that was given an indicator matrix whose columns are `classes_`. A label that was not
        there in training counts as missed.
        """
        rows, _ = self._search(X, 1)
        target = Target.read(y)
        check_consistent_length(rows, target.positives)
        if target.is_matrix:
            if len(target.classes) != len(self.classes_):
                raise InputError(f"y has {len(target.classes)} columns for {len(self.classes_)} labels.")
            return float(np.mean(target.positives[np.arange(len(rows)), rows[:, 0]]))
        best = self.classes_[rows[:, 0]].tolist()
        return float(np.mean([label in labels for label, labels in zip(best, target.labels(), strict=True)]))

    def save(self, directory: str | Path, overwrite: bool = False) -> None:
        """Write a run directory, which `Retriever.load` and the command line read too; StoreError as Retriever.save."""
        check_is_fitted(self, "retriever_")
        RunDirectory(directory).require_free(overwrite)
        retriever = self.retriever_
        retriever.set_columns({"uid": retriever.labels.uids.to_pylist(), COLUMN: self.classes_.tolist()})
        own_texts = self.label_texts is not None
        seed = self.random_state if isinstance(self.random_state, int) else None
        parameters = {**self.get_params(), "label_texts": None, "random_state": seed}
        section = {
            "parameters": {**parameters, "config": None if self.config is None else dict(self.config)},
            "own_texts": own_texts,
            "target": self.target_,
            "k": self.k_,
            "dtype": str(self.classes_.dtype),
        }
        metrics = retriever.metrics
        retriever.metrics = replace(metrics, sections={**metrics.sections, SECTION: section})
        retriever.save(directory, overwrite)

    @classmethod
    def load(cls, directory: str | Path) -> XMCClassifier:
        """Read a classifier that `save` wrote; StoreError for another run."""
        retriever = Retriever.load(directory)
        if SECTION not in retriever.metrics.sections:
            raise StoreError(f"{directory} holds a run that no XMCClassifier wrote; load it with xmc.Retriever.load.")
        stored = retriever.metrics.sections[SECTION]
        classifier = cls(**stored["parameters"])
        labels = retriever.labels
        classes = labels.table[COLUMN].to_pylist()
        if stored["own_texts"]:
            classifier.label_texts = dict(zip(classes, labels.texts.to_pylist(), strict=True))
        classifier.retriever_, classifier.target_, classifier.k_ = retriever, stored["target"], stored["k"]
        classifier.classes_ = np.array(classes, stored["dtype"])
        return classifier

    def _search(self, X: Any, k: int) -> tuple[npt.NDArray[np.int64], Scores]:
        check_is_fitted(self, "retriever_")
        return self.retriever_.search(read_texts(X), k, allow_empty=True)

    def _fitted_target(self) -> str:
        check_is_fitted(self, "retriever_")
        return str(self.target_)

    def _training(self, texts: Sequence[str], seed: int) -> TrainConfig:
        """The configuration for these texts."""
        values, changes = dict(self.config or {}), {"seed": seed}
        if self.encoder != "static":
            section = values.get("encoder")
            options = dict(section) if isinstance(section, Mapping) else {}
            values["encoder"] = {**options, "kind": "transformer", "directory": self.encoder}
            values.setdefault("negatives", "bank")  # or every step would encode every label
        config = TrainConfig.from_mapping(values, source="XMCClassifier")
        if StaticConfig.of(config.encoder) is not None:
            features = sum(map(len, texts)) * 4  # character n-grams of three lengths, and some words
            rows = min(max(1 << max(features - 1, 1).bit_length(), TABLE_ROWS[0]), TABLE_ROWS[1])
            given = config.encoder.model_fields_set
            changes |= {f"encoder.{name}": rows for name in ("table_rows", "weight_slots") if name not in given}
        if "batch_size" not in config.model_fields_set:
            changes["batch_size"] = min(config.batch_size, math.ceil(len(texts) / STEPS_AN_EPOCH))
        asked = {"epochs": self.epochs, "optimizer.learning_rate.encoder": self.learning_rate}
        return config.changed(**changes, **{name: value for name, value in asked.items() if value is not None})

    def _texts_of(self, classes: Labels) -> list[str]:
        given, labels = self.label_texts, classes.tolist()
        if given is None:
            return [str(label) for label in labels]
        if isinstance(given, Mapping):
            return [str(given.get(label, label)) for label in labels]
        if isinstance(given, str) or len(given) != len(labels):
            raise InputError(f"label_texts must be a mapping, or a list of {len(labels)} texts, one for each label.")
        return [str(text) for text in given]

    def __getstate__(self) -> dict[str, Any]:
        """For processes that are given a fitted classifier: its run directory as bytes."""
        state = dict(super().__getstate__())
        retriever = state.pop("retriever_", None)
        if retriever is not None:
            with TemporaryDirectory(prefix="xmc-") as folder:
                run = Path(folder) / "run"
                retriever.save(run)
                files = [file for file in sorted(run.rglob("*")) if file.is_file()]
                state["run_"] = {file.relative_to(run).as_posix(): file.read_bytes() for file in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("run_", None)
        super().__setstate__(state)
        if files is not None:
            with TemporaryDirectory(prefix="xmc-") as folder:
                for name, content in files.items():
                    file = Path(folder) / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
                self.retriever_ = Retriever.load(folder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array, tags.input_tags.two_d_array, tags.input_tags.string = True, False, True
        tags.target_tags.one_d_labels = tags.target_tags.two_d_labels = True
        tags.classifier_tags.multi_label = True
        return tags
