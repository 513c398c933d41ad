"""Table imperfect: wordnet-8k with planted corruption of its training split, and what repairs it wins back.

Each method is a corruption, which benchmarks/planted.py makes from the seed, and what is done about it: "plain" trains as if
nothing were wrong, "oracle" knows what is missing and keeps it out of the negatives; without its wrong pairs a data set is
clean, so that "clean: plain" is the oracle of wrong pairs. Corruption and model both change with the seed. The configuration
is the default one but for what a method names; metrics are of the clean test split, propensities of the clean training split.

What has been measured is kept in build/benchmarks/imperfect, with the metrics of each query, and not measured again until
the method's configuration or its CODE changes. `python benchmarks/imperfect_table.py` shows the means over seeds. Methods that
begin with LF-WordNet need that folder in the directory that XMC_DATA names.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import lf_wordnet
import numpy as np
import numpy.typing as npt
import planted
import planted_evidence
from measurements import Measurement
from retrieval import CACHE

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.data.name_votes import name_votes
from xmc.evaluation.evaluate import evaluate
from xmc.evaluation.per_query import QueryMetrics
from xmc.search.retriever import Retriever
from xmc.storage.files import atomic_file
from xmc.storage.manifests import LOG, MANIFEST
from xmc.training.checkpoints import Checkpoint
from xmc.training.trainer import train

__all__ = ["METHODS", "METRICS", "Method", "baselines", "file_of", "run"]

Best = npt.NDArray[np.int64]
METRICS = ("P@1", "P@5", "nDCG@5", "PSP@1", "PSP@5")
CODE = "1"
"""Of plain training and the corruptions: another one where they change, so that what was measured is measured again."""
ESTIMATOR = "1"
"""Of the estimator of targets, likewise."""
SEARCH = "2"
"""Of what it does about missing pairs, and votes, likewise."""
LARGE = "LF-WordNet, "
"""How the methods begin that are of all of WordNet, of 65,962 labels, and of its configuration."""
KEPT = 50
"""Number of best labels of each training query that are kept of a run that another method begins with."""


@dataclass(frozen=True)
class Method:
    """A corruption, and what is done about it.

    plant: makes the data set from the clean one and the seed. repair: changes it, given the clean one, the planted one, the
    best labels of each training query by the run of the method `first`, and the seed. changes: keys of the configuration.
    teachers: methods whose runs teach it. large: whether it is of LF-WordNet.
    """

    plant: Callable[[Dataset, int], Dataset]
    repair: Callable[[Dataset, Dataset, Best, int], Dataset] | None = None
    first: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    code: str = CODE
    teachers: tuple[str, ...] = ()
    large: bool = False

    def dataset(self) -> Dataset:
        """The clean one. DataError where it is not there."""
        return lf_wordnet.dataset() if self.large else Dataset.load("wordnet-8k")

    def config(self, seed: int) -> TrainConfig:
        """Of its training."""
        config = TrainConfig.load(lf_wordnet.CONFIG) if self.large else TrainConfig(token_cache=None)
        return config.changed(seed=seed, **self.changes)


def _oracle(clean: Dataset, data: Dataset, best: Best, seed: int) -> Dataset:
    return planted.with_left_out(data, planted.removed(clean, data))


def _beyond(rank: int, clean: Dataset, data: Dataset, best: Best, seed: int) -> Dataset:
    return planted.with_left_out(data, planted.beyond(data, best[:, :rank]))


def _rejected(wrong: float, clean: Dataset, data: Dataset, best: Best, seed: int) -> Dataset:
    return planted.with_rejected(clean, data, planted.not_given(data, best, 5), wrong, seed)


def _reviewed(wrong: float, clean: Dataset, data: Dataset, best: Best, seed: int) -> Dataset:
    return planted_evidence.with_verdicts(clean, data, planted.not_given(data, best, 5), wrong, seed)


def _bag_shares(size: int, random: bool, data: Dataset, seed: int) -> Dataset:
    return planted.bag_shares(data, planted.bag_rows(data, size, seed, random))


def _bags(size: int, random: bool, data: Dataset, seed: int) -> Dataset:
    return planted_evidence.in_bags(data, planted.bag_rows(data, size, seed, random))


def _sets(data: Dataset, seed: int) -> Dataset:
    return planted_evidence.hidden_in_sets(data, 4, seed)


def _voted(data: Dataset, seed: int) -> Dataset:
    return planted_evidence.voted(data, ACCURACIES, seed)


def _majority(names: Sequence[str], clean: Dataset, data: Dataset, best: Best, seed: int) -> Dataset:
    return planted_evidence.by_majority(data, names)


def _all_of_sets(clean: Dataset, data: Dataset, best: Best, seed: int) -> Dataset:
    return planted_evidence.all_of_sets(data)


def _named(clean: Dataset, data: Dataset, best: Best, seed: int) -> Dataset:
    return data.with_evidence("train", votes=name_votes(data))


def _half(number: int, data: Dataset, seed: int) -> Dataset:
    return planted.halves_of_labels(data, seed)[number]


def _untold(data: Dataset, seed: int) -> Dataset:
    return planted_evidence.without_labels(data)


def _posterior(**supervision: Any) -> dict[str, Any]:
    """Keys of the configuration for the estimator of targets."""
    return {f"supervision.{key}": value for key, value in {"estimator": "posterior", **supervision}.items()}


STRIPPED = _posterior(recorded=0.64)
ACCURACIES = (0.9, 0.7, 0.5)
"""Of the planted sources."""
PLANTED: dict[str, Callable[[Dataset, int], Dataset]] = {
    "clean": lambda data, seed: data,
    "wrong 50%": lambda data, seed: planted.wrong_by_frequency(data, 0.5, seed),
    "missing 50%": lambda data, seed: planted.drop(data, 0.5, seed),
    "one positive": planted.one_positive,
    "wrong 20%": lambda data, seed: planted.wrong_by_frequency(data, 0.2, seed),
    "similar wrong 50%": lambda data, seed: planted.wrong_similar(data, 0.5, seed),
    "stripped 30%": lambda data, seed: planted.strip_labels(data, 0.3, seed),
}
"""Corruptions of given pairs by name."""
ESTIMATED: dict[str, dict[str, Any]] = {
    "clean": _posterior(wrong="estimate"),
    "wrong 50%": _posterior(wrong="estimate"),
    "wrong 20%": _posterior(wrong="estimate"),
    "similar wrong 50%": _posterior(wrong="estimate"),
    "missing 50%": _posterior(recorded=0.5),
    "one positive": _posterior(positives=5.0),
    "stripped 30%": STRIPPED,
}
"""What the estimator is told of each."""
MISSING = ("missing 50%", "one positive", "stripped 30%")
WRONG = ("wrong 50%", "wrong 20%", "similar wrong 50%")
BAGS = {"bags of 8": (8, True), "bags of 1": (1, True), "bags of 64": (64, True), "bags of 8, by subject": (8, False)}
HALVES = ("teachers of halves: first", "teachers of halves: second")
"""Runs that are each trained with the given pairs of a half of the labels; a student sees queries without labels."""
REVIEWED = {
    "missing 50%, rejected": partial(_rejected, 0.0),
    "missing 50%, rejected, 20% wrong": partial(_rejected, 0.2),
    "missing 50%, reviewed": partial(_reviewed, 0.0),
    "missing 50%, reviewed, 20% wrong": partial(_reviewed, 0.2),
}
"""Of each query's five best labels that are not given by plain training: those that are not true are rejected, and a share of
all rejections is of true pairs; or each is voted on by a reviewer, who is wrong that often."""


def _code(case: str) -> str:
    return SEARCH if case in MISSING else ESTIMATOR


def _methods() -> Iterator[tuple[str, Method]]:
    """All, by name."""
    for case, plant in PLANTED.items():
        yield f"{case}: plain", Method(plant)
        yield f"{case}: posterior", Method(plant, changes=ESTIMATED[case], code=_code(case))
    for case in ("clean", "wrong 50%", "missing 50%"):
        plain = Method(PLANTED[case], large=True)
        yield f"{LARGE}{case}: plain", plain
        yield f"{LARGE}{case}: posterior", replace(plain, changes=ESTIMATED[case], code=_code(case))
    yield "stripped 30%, names: posterior", Method(PLANTED["stripped 30%"], _named, changes=STRIPPED, code=SEARCH)
    for case in MISSING:
        yield f"{case}: oracle", Method(PLANTED[case], _oracle)
    for case in WRONG:
        yield f"{case}: rank 20", Method(PLANTED[case], partial(_beyond, 20), f"{case}: plain")
    for case, (size, random) in BAGS.items():
        weights = {"objective.relevance_weights": True}
        yield f"{case}: plain", Method(partial(_bag_shares, size, random), changes=weights)
        yield f"{case}: posterior", Method(partial(_bags, size, random), changes=_posterior(), code=ESTIMATOR)
    for case, repair in REVIEWED.items():
        told = _posterior(recorded=0.5)
        yield f"{case}: posterior", Method(PLANTED["missing 50%"], repair, "missing 50%: plain", told, SEARCH)
    yield "sets of 5: plain", Method(_sets, _all_of_sets)
    yield "sets of 5: posterior", Method(_sets, changes=_posterior(), code=ESTIMATOR)
    yield "sources: plain", Method(_voted, partial(_majority, ()))
    yield "sources: best source", Method(_voted, partial(_majority, (planted_evidence.source_name(max(ACCURACIES)),)))
    saved = {"checkpoint.steps": 99}
    yield "sources: posterior", Method(_voted, changes={**_posterior(), **saved}, code=SEARCH)
    for number, half in enumerate(HALVES):
        yield half, Method(partial(_half, number))
    for choose in ("surest", "all"):
        taught = {"objective.distillation.choose": choose, "objective.distillation.weight": 1.0}
        yield f"teachers of halves: {choose}", Method(_untold, changes=taught, teachers=HALVES)


METHODS: dict[str, Method] = dict(_methods())
"""By name. "plain" of bags takes the share of a bag's queries that have a label for its relevance, of sets all labels for
positives, of sources their majority."""
BEGUN_WITH = {method.first for method in METHODS.values()}


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure each method whose name begins with one of `methods`; all whose data are there without such."""
    for name, method in METHODS.items():
        if not methods and method.large and not os.environ.get("XMC_DATA"):
            print(f"{name} is skipped: XMC_DATA does not name the directory that holds its data set.", file=sys.stderr)
        elif not methods or name.startswith(tuple(methods)):
            found = _measured(name, method.dataset(), seed)
            yield [Measurement("imperfect", name, metric, value, unit, seed) for metric, value, unit in found]


def baselines(name: str) -> tuple[str, str]:
    """The plain training on the same data, without what is added to them, and that on clean data."""
    parts = name.split(": ")[0].split(", ")
    cases = [", ".join(parts[:end]) for end in range(len(parts), 0, -1)]
    plain = next((f"{case}: plain" for case in cases if f"{case}: plain" in METHODS), name)
    return plain, f"{LARGE if METHODS[name].large else ''}clean: plain"


def file_of(name: str, seed: int, suffix: str = ".json") -> Path:
    """Where what was measured is kept: .json the metrics, .parquet those of each query, .npy training queries' best labels."""
    method = METHODS[name]
    key = json.dumps([name, seed, dict(method.changes), method.code], sort_keys=True)
    plain = "".join(letter if letter.isalnum() else "-" for letter in name)
    return CACHE / "imperfect" / f"{plain}-{seed}-{hashlib.sha256(key.encode()).hexdigest()[:12]}{suffix}"


def _measured(name: str, clean: Dataset, seed: int) -> list[tuple[str, float, str]]:
    """Rows (metric, value, unit): those that are kept, else of a training."""
    file = file_of(name, seed)
    if not file.exists():
        _measure(name, clean, seed)
    return [tuple(row) for row in json.loads(file.read_text(encoding="utf-8"))]


def _measure(name: str, clean: Dataset, seed: int) -> None:
    method = METHODS[name]
    data = method.plant(clean, seed)
    if method.repair is not None:
        best = np.zeros((0, 0), np.int64)
        if method.first:
            _measured(method.first, clean, seed)
            best = np.load(file_of(method.first, seed, ".npy"))
        data = method.repair(clean, data, best, seed)
    directory, config = _run_of(name, seed), method.config(seed)
    if method.teachers:
        config = config.changed(
            **{"objective.distillation.teacher": [_taught(name, clean, seed) for name in method.teachers]}
        )
    start = time.perf_counter()
    believed = _Believed()
    train(data, config, directory, overwrite=True, callbacks=[believed])
    seconds = time.perf_counter() - start
    retriever = Retriever.load(directory)
    evaluation = evaluate(retriever, clean, exact=True, metrics="p,ndcg,psp", k=[1, 5])
    rows = [(metric, evaluation[metric], "percent") for metric in METRICS]
    rows += [("training", seconds, "seconds"), *_estimated(directory)]
    if data.votes("train") is not None and believed.probabilities is not None and not len(planted.keys_of(data)):
        losses = planted_evidence.log_losses(clean, data, believed.probabilities)
        rows += [("log-loss of the posterior", losses[0], ""), ("log-loss of the majority", losses[1], "")]
    if name in HALVES or method.teachers:
        rows += _of_halves(retriever.exact(), clean, seed)
    file_of(name, seed).parent.mkdir(parents=True, exist_ok=True)
    QueryMetrics.from_evaluated(name, evaluation).save(file_of(name, seed, ".parquet"))
    if name in BEGUN_WITH:
        best, _ = retriever.exact().search(clean.split("train").texts.to_pylist(), KEPT)
        np.save(file_of(name, seed, ".npy"), best.astype(np.int32))
    with atomic_file(file_of(name, seed)) as temporary:
        temporary.write_text(json.dumps(rows), encoding="utf-8")


def _run_of(name: str, seed: int) -> Path:
    """The directory of a method's run; those of teachers are kept."""
    return file_of(name, seed, ".run") if name in HALVES else CACHE / "runs" / "imperfect"


def _taught(name: str, clean: Dataset, seed: int) -> str:
    """The directory of a teacher's run, which is trained where it is not there."""
    if not (_run_of(name, seed) / MANIFEST).exists():
        _measure(name, clean, seed)
    return str(_run_of(name, seed))


def _of_halves(retriever: Retriever, clean: Dataset, seed: int) -> Iterator[tuple[str, float, str]]:
    """P@1 among the labels of each half, of the test queries that have a true label in it."""
    split, uids = clean.split("test"), np.array(clean.labels.uids.to_pylist(), object)
    truth = clean.targets("test").truth
    for which, half in zip(("first", "second"), planted.halves_of_labels(clean, seed), strict=True):
        known = np.bincount(half.split("train").positives.indices, minlength=len(uids)) > 0
        asked = np.flatnonzero(truth.astype(np.int64) @ known.astype(np.int64))
        texts = split.texts.take(asked).to_pylist()
        best, _ = retriever.search(texts, 1, include=uids[known].tolist())
        hits = np.asarray(truth[asked, best[:, 0]]).ravel() > 0
        yield f"P@1 among its labels, {which} half", 100 * float(hits.mean()), "percent"


class _Believed:
    """Hears of checkpoints, and keeps the probabilities of pairs with evidence that are in the last one."""

    probabilities: npt.NDArray[np.floating] | None = None

    def on_save(self, step: int, directory: Path) -> None:
        """See xmc.training.callbacks."""
        if directory.parent.name.endswith("checkpoints"):
            checkpoint = Checkpoint(directory)
            if "supervision.evidence" in checkpoint.names:
                self.probabilities = checkpoint.tensor("supervision.evidence").numpy()


def _estimated(directory: Path) -> Iterator[tuple[str, float, str]]:
    """What the first estimate of a run says of the data, from its log: the share of wrong pairs, accuracies of sources."""
    for line in (directory / LOG).read_text(encoding="utf-8").splitlines():
        found = json.loads(line).get("supervision")
        if found:
            yield "wrong given pairs, estimated", 100 * found["wrong"], "percent"
            yield "left out", float(found["left_out"]), "pairs"
            for key, what in (("accuracies", "accuracy"), ("precisions", "precision")):
                for name, share in found[key].items():
                    yield f"{what} of {name}, estimated", 100 * share, "percent"
            return
