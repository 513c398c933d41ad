"""XMCClassifier: scikit-learn's own checks, the targets it takes, and what it leaves behind."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array, csr_matrix, issparse
from small_models import minilm_directory

from xmc.errors import ConfigError, InputError, StoreError
from xmc.search.retriever import Retriever
from xmc.search.run_metrics import RunMetrics

pytest.importorskip("sklearn", reason="the package scikit-learn is not installed")
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score, label_ranking_average_precision_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from xmc.interop.scikit_learn import XMCClassifier

X = [
    f"{colour} {thing} {i}"
    for i, thing in enumerate(("boat", "house", "tree", "cup"))
    for colour in ("red", "green", "blue")
]
SINGLE = [text.split()[0] for text in X]
LISTS = [sorted(text.split()[:2]) for text in X]
LABELS = ["blue", "boat", "cup", "green", "house", "red", "tree"]
INDICATOR = np.array([[int(label in row) for label in LABELS] for row in LISTS])
SMALL = {"encoder": {"dimension": 64}}


class NumbersAsWords(XMCClassifier):  # type: ignore[misc]
    """What lets scikit-learn's checks, which come with matrices of numbers, reach XMCClassifier: each number is a word."""

    def fit(self, X: Any, y: Any) -> NumbersAsWords:
        return super().fit(self._words(X, reset=True), y)  # type: ignore[return-value]

    def decision_function(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().decision_function(self._words(X))

    def _search(self, X: Any, k: int) -> Any:
        check_is_fitted(self)
        return super()._search(self._words(X), k)

    def _words(self, X: Any, reset: bool = False) -> list[str]:
        numbers = np.rint(2 * validate_data(self, X, reset=reset).astype(float)).astype(int)
        return [" ".join(f"c{column}v{number}" for column, number in enumerate(row)) for row in numbers]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array, tags.input_tags.two_d_array, tags.input_tags.string = False, True, False
        return tags


@parametrize_with_checks([XMCClassifier(random_state=0)])
def test_checks_of_scikit_learn_for_text(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([NumbersAsWords(epochs=3, config=SMALL, random_state=0)])
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def single() -> XMCClassifier:
    return XMCClassifier(random_state=0, config=SMALL).fit(X, SINGLE)


@pytest.fixture(scope="module")
def several() -> XMCClassifier:
    return XMCClassifier(random_state=0, config=SMALL).fit(X, LISTS)


def test_one_label_each(single: XMCClassifier) -> None:
    assert single.classes_.tolist() == ["blue", "green", "red"]
    assert single.predict(["a red door", "blue sky"]).tolist() == ["red", "blue"]
    assert single.score(X, SINGLE) == 1.0
    assert single.score(X, ["purple", *SINGLE[1:]]) == pytest.approx(1 - 1 / len(X))  # never seen: it is missed
    labels, scores = single.predict_topk(np.array(["a green door"]), k=9)
    assert labels.shape == scores.shape == (1, 3)
    assert labels[0, 0] == "green"
    assert (np.diff(scores[0]) <= 0).all()
    numbers = XMCClassifier(random_state=0, config=SMALL).fit(X, np.array([LABELS.index(label) for label in SINGLE]))
    assert numbers.predict(["a red door"]).tolist() == [LABELS.index("red")]
    assert numbers.classes_.dtype.kind == "i"


def test_lists_of_labels(several: XMCClassifier) -> None:
    assert several.classes_.tolist() == LABELS
    assert several.k_ == 2
    found = several.predict(X)
    assert isinstance(found, np.ndarray)
    assert (found.sum(1) == 2).all()
    assert f1_score(INDICATOR, found, average="micro") > 0.9
    assert label_ranking_average_precision_score(INDICATOR, several.decision_function(X)) > 0.9
    assert several.score(X, LISTS) == several.score(X, INDICATOR) == several.score(X, csr_matrix(INDICATOR)) > 0.9
    with pytest.raises(InputError, match="y has 6 columns for 7 labels"):
        several.score(X, INDICATOR[:, 1:])
    labels, _ = several.predict_topk(["a red boat"], k=2)
    assert sorted(labels[0]) == ["boat", "red"]
    many = XMCClassifier(epochs=1, config=SMALL, random_state=0).fit(["a", "b"], [range_of(0), range_of(600)])
    assert issparse(many.predict(["a"]))


def range_of(start: int) -> list[int]:
    return list(range(start, start + 600))


@pytest.mark.parametrize("kind", [np.asarray, csr_matrix, csr_array, pd.DataFrame, lambda y: y.tolist()])
def test_indicator_matrices(kind: Any) -> None:
    y = kind(INDICATOR)
    classifier = XMCClassifier(epochs=3, config=SMALL, label_texts=LABELS, k=1, random_state=0).fit(pd.Series(X), y)
    assert classifier.classes_.tolist() == list(range(7))
    assert classifier.retriever_.labels.texts.to_pylist() == LABELS
    found = classifier.predict(X)
    assert issparse(found) == issparse(y)
    assert (np.asarray(found.sum(1)).ravel() == 1).all()
    assert classifier.score(X, y) > 0.9
    assert (classifier.predict_topk(X, 1)[0] == classifier.decision_function(X).argmax(1)[:, None]).all()


def test_scores_stand_in_the_order_of_classes_whatever_becomes_of_labels() -> None:
    classifier = XMCClassifier(epochs=1, config=SMALL, label_texts=LABELS, k=1, random_state=0).fit(X, INDICATOR)
    before = classifier.decision_function(X)
    retriever = classifier.retriever_
    retriever.update_labels([LABELS[1]], ["1"], score="raw")
    retriever.remove_labels(["3"])
    after = classifier.decision_function(X)
    others = [0, 2, 4, 5, 6]
    assert after.shape == before.shape
    assert (after[:, others] == before[:, others]).all()
    assert np.isneginf(after[:, 3]).all()
    assert np.allclose(after[:, 1], retriever.embed_queries(X) @ retriever.labels.vectors_of(["1"])[0], atol=1e-6)


def test_texts_of_labels() -> None:
    y = [[LABELS.index(label) for label in row] for row in LISTS]
    classifier = XMCClassifier(epochs=1, config=SMALL, label_texts={0: "the colour blue"}).fit(X, y)
    assert classifier.retriever_.labels.texts.to_pylist()[:2] == ["the colour blue", "1"]
    assert classifier.retriever_.labels.uids.to_pylist() == [str(label) for label in range(7)]


def test_the_same_seed_is_the_same_model(single: XMCClassifier) -> None:
    again = clone(single).fit(X, SINGLE)
    assert (again.decision_function(X) == single.decision_function(X)).all()
    other = clone(single).set_params(random_state=1).fit(X, SINGLE)
    assert (other.decision_function(X) != single.decision_function(X)).any()


def test_among_other_estimators() -> None:
    search = GridSearchCV(XMCClassifier(config=SMALL, random_state=0), {"epochs": [1, 2]}, cv=2).fit(X, SINGLE)
    assert search.best_params_["epochs"] in (1, 2)
    pipeline = make_pipeline(
        FunctionTransformer(lambda texts: [text.upper() for text in texts]), clone(search.estimator)
    )
    assert pipeline.fit(X, SINGLE).score(X, SINGLE) == 1.0
    scores = cross_val_score(
        XMCClassifier(config=SMALL, random_state=0), X, LISTS, cv=KFold(3, shuffle=True, random_state=0)
    )
    assert scores.mean() > 0.5
    assert TfidfVectorizer().fit(X).get_feature_names_out().size  # X is what a vectoriser of text takes


@pytest.mark.parametrize(
    "target", [SINGLE, LISTS, INDICATOR, csr_matrix(INDICATOR)], ids=["one", "lists", "dense", "sparse"]
)
def test_saved_and_loaded(target: Any, tmp_path: Path) -> None:
    classifier = XMCClassifier(
        epochs=2, k=3, config=SMALL, label_texts=LABELS[: 3 if target is SINGLE else 7], random_state=3
    )
    classifier.fit(X, target).save(tmp_path / "run")
    loaded = XMCClassifier.load(tmp_path / "run")
    assert loaded.get_params() | {"label_texts": LABELS} == classifier.get_params() | {"label_texts": LABELS}
    assert loaded.label_texts == dict(zip(classifier.classes_.tolist(), classifier.label_texts, strict=True))
    assert (loaded.classes_ == classifier.classes_).all()
    assert loaded.classes_.dtype == classifier.classes_.dtype
    one, two = loaded.predict(X), classifier.predict(X)
    assert type(one) is type(two)
    assert (one != two).sum() == 0
    assert len(Retriever.load(tmp_path / "run")) == len(classifier.classes_)
    with pytest.raises(StoreError, match="already holds a run"):
        classifier.save(tmp_path / "run")
    Retriever.load(tmp_path / "run").save(tmp_path / "again")
    XMCClassifier.load(tmp_path / "again").save(tmp_path / "run", overwrite=True)
    plain = Retriever.load(tmp_path / "run")
    plain.metrics = RunMetrics()
    plain.save(tmp_path / "plain")
    with pytest.raises(StoreError, match=r"no XMCClassifier wrote; load it with xmc\.Retriever\.load"):
        XMCClassifier.load(tmp_path / "plain")


def test_copies_are_whole(several: XMCClassifier) -> None:
    """As joblib sends them between processes."""
    for other in (copy.deepcopy(several), pickle.loads(pickle.dumps(several))):
        assert (other.predict(X) == several.predict(X)).all()


@pytest.mark.slow
def test_nothing_is_left_and_nothing_is_printed(tmp_path: Path) -> None:
    code = (
        "from xmc import XMCClassifier\n"
        "c = XMCClassifier(random_state=0).fit(['a red boat', 'green tea'], ['red', 'green'])\n"
        "assert c.predict(['a red house']).tolist() == ['red']\n"
        "c.save('run')\n"
    )
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path / "tmp")}, timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "tmp"]
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("texts", "y", "kind", "message"),
    [
        ("a text", ["a"], InputError, "X must be a list of texts; put a single text into a list"),
        (["a", None], ["a", "b"], InputError, "at 1 is None, a NoneType"),
        ([["a"], ["b"]], ["a", "b"], InputError, r"at 0 is \['a'\], a list"),
        (["a", "b"], ["a"], ValueError, "inconsistent numbers of samples"),
        (["a", "b"], [["a"], [1]], InputError, "all strings or all ints, but y holds int and str"),
        (["a", "b"], [[], []], InputError, "y holds no labels"),
        (["a", "b"], [["a"], None], InputError, "y begins with a list of labels, but at 1 is None"),
        (["a", "b"], [[0, 1], [1, 0]], InputError, "could be an indicator matrix or lists of the labels 0 and 1"),
        (["a", "b"], np.array([[0, 2], [1, 0]]), InputError, "other values than 0 and 1"),
        (["a", "b"], [0.5, 1.5], ValueError, "Unknown label type"),
        (["a", "b"], None, ValueError, "requires y"),
    ],
)
def test_mistakes_are_named(texts: Any, y: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        XMCClassifier(config=SMALL).fit(texts, y)


def test_parameters_that_do_not_fit(tmp_path: Path) -> None:
    for parameters, kind, message in (
        ({"config": {"epoch": 3}}, ConfigError, "unknown key 'epoch'"),
        ({"epochs": 0}, ConfigError, "epochs must be at least 1"),
        ({"encoder": str(tmp_path / "none")}, ConfigError, "is not a directory with a model"),
        ({"label_texts": ["one"]}, InputError, "a list of 3 texts"),
        ({"k": 0}, InputError, "k must be at least 1"),
    ):
        with pytest.raises(kind, match=message):
            XMCClassifier(**parameters).fit(X, SINGLE)
    with pytest.raises(NotFittedError):
        XMCClassifier().predict(X)
    with pytest.raises(NotFittedError):
        XMCClassifier().save(tmp_path / "run")


@pytest.mark.slow
def test_without_scikit_learn() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import xmc\n"
        "try: xmc.XMCClassifier\n"
        "except xmc.XMCError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == (
        "XMCClassifier is an estimator of scikit-learn, which needs the package sklearn: pip install scikit-learn"
    )


def test_a_transformer_directory(tmp_path: Path) -> None:
    texts = ["a boat on the water", "ships and harbours", "a loaf of bread", "butter and cheese"]
    classifier = XMCClassifier(str(minilm_directory()), epochs=1, random_state=0)
    classifier.fit(texts, ["sea", "sea", "meal", "meal"])
    assert classifier.predict(["a catamaran", "two croissants"]).tolist() == ["sea", "meal"]
    assert classifier.retriever_.config.encoder.kind == "transformer"
