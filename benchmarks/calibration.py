"""Table calibration: what calibrated probabilities, label sets and regions are worth on queries they know nothing of.

The queries of the split "test" are halved at random 50 times. All is fitted and chosen on one half, as xmc.calibrate does (on
one part of it the probabilities, on the other the thresholds), and measured on the other half. Needs the folder LF-WordNet in
the directory that XMC_DATA names; runs are trained on first use. Then the time and memory of regions, in their own processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import lf_wordnet
import numpy as np
import numpy.typing as npt
from measurements import Measurement, from_samples
from retrieval import CACHE
from rich.console import Console

from xmc.calibration.candidates import Candidates, JudgedCandidates
from xmc.calibration.powerset import UNIT, fit_powerset, true_costs
from xmc.calibration.probabilities import Floats
from xmc.calibration.reliability import reliability
from xmc.calibration.risk import Thresholds, false_positive_thresholds, miss_thresholds, set_sizes
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.evaluation.calibrate import Fitted, calibrate, fit_half
from xmc.evaluation.gather import gather, groups_of_labels
from xmc.evaluation.held_aside import queries_to_calibrate_on
from xmc.progress import tracked
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

__all__ = ["run"]

TABLE = "calibration"
SPLITS = 50
RECALLS = (Fraction(4, 5), Fraction(9, 10), Fraction(19, 20))
SHARES = (Fraction(1, 5), Fraction(1, 2))
SIGNIFICANCES = (Fraction(1, 5), Fraction(1, 10), Fraction(1, 20))
FEW = 200
"""Candidates by default."""
SIMULATIONS = 20
"""From which the floor of an error is the mean."""
PADDING = 9
"""Labels for each one of the data set that are never retrieved."""
TURNS = 3
console = Console()

REGIONS = """
import json, sys, time
from xmc.data.dataset import Dataset
from xmc.progress import tracked
from xmc.search.retriever import Retriever

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def measured(call):
    open("/proc/self/clear_refs", "w").write("5")  # the highest resident size begins anew
    before, start = memory("VmRSS"), time.perf_counter()
    result = call()
    return result, time.perf_counter() - start, memory("VmHWM") - before

retriever = Retriever.load(sys.argv[1])
texts = Dataset.load("wordnet-8k").split("test").texts.to_pylist()
retriever.predict_sets(texts[:100], significance=0.1)
_, search, _ = measured(lambda: retriever.search(texts, retriever.calibration.candidates))
regions, whole, grown = measured(lambda: retriever.predict_sets(texts, significance=0.1))
digits = [len(str(region.count)) - 1 for region in regions if region.count]
empty = 1 - len(digits) / len(texts)
print(json.dumps({"search": search, "regions": whole - search, "memory": grown, "powers": digits, "empty": empty}))
"""

Found = dict[tuple[str, str], list[float]]
Halved = tuple[Found, tuple[npt.NDArray[np.int64], Floats]]
"""A number for each split, NaN where it cannot be had, by metric and unit."""


@dataclass(frozen=True)
class Case:
    """A data set, and how many candidates are looked at beside FEW: as many as a recall of 0.95 needs."""

    name: str
    dataset: Callable[[], Dataset]
    config: Callable[[], TrainConfig]
    many: int


CASES = (
    Case("wordnet-8k", lambda: Dataset.load("wordnet-8k"), TrainConfig, 4_000),
    Case("LF-WordNet", lf_wordnet.dataset, lambda: TrainConfig.load(lf_wordnet.CONFIG), 12_000),
)


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure with one seed. DataError without the data."""
    for case in CASES:
        names = {f"{case.name}, {count:,} candidates": count for count in (FEW, case.many)}
        asked = {name: count for name, count in names.items() if not methods or name.startswith(tuple(methods))}
        if asked:
            judged, temperature = _gathered(case, max(asked.values()), seed)
            for name, count in asked.items():
                yield _splits(name, _first(judged, count), temperature, count == FEW, seed)
    for name, padding in (("regions, 7,488 labels", 0), ("regions, 74,880 labels", PADDING)):
        if not methods or name.startswith(tuple(methods)):
            yield _regions(name, padding, seed)


def _trained(case: Case, seed: int) -> Path:
    directory = CACHE / "runs" / f"calibration-{case.name}-{seed}"
    if not directory.exists():
        config = TrainConfig.from_mapping({**case.config().to_mapping(), "seed": seed})
        train(case.dataset(), config, directory)
    return directory


def _gathered(case: Case, count: int, seed: int) -> tuple[JudgedCandidates, float]:
    """Candidates of all test queries, and the temperature of training."""
    retriever, data = Retriever.load(_trained(case, seed)), case.dataset()
    aside = queries_to_calibrate_on(retriever, data, "test")
    groups = groups_of_labels(retriever, data, aside.training)
    judged = gather(retriever, data, aside.queries, aside.targets, count, groups, seed)
    return judged, retriever.config.objective.temperature


def _first(judged: JudgedCandidates, count: int) -> JudgedCandidates:
    """With no more candidates than so many."""
    part, hits = judged.candidates, np.ascontiguousarray(judged.hits[:, :count])
    candidates = Candidates(np.ascontiguousarray(part.scores[:, :count]), np.ascontiguousarray(part.groups[:, :count]))
    return JudgedCandidates(candidates, hits, judged.positives, judged.draws)


def _splits(name: str, judged: JudgedCandidates, temperature: float, everything: bool, seed: int) -> list[Measurement]:
    """everything: not the sets for a recall alone, which long lists of candidates are for."""
    found: Found = defaultdict(list)
    firsts: list[tuple[npt.NDArray[np.int64], Floats]] = []
    halve = partial(_halved, judged, temperature, everything, seed)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with get_context("fork").Pool(workers, _keep, (halve,)) as pool:  # forked: the candidates are not copied
        for own, first in tracked(pool.imap(_call, range(SPLITS)), name, SPLITS, unit="splits"):
            firsts.append(first)
            for key, values in own.items():
                found[key] += values
    rows_of_table = [
        one for (metric, unit), values in found.items() for one in _summary(name, metric, values, unit, seed)
    ]
    if everything:
        error, floor = _pooled(firsts, judged)
        for metric, value in (("ECE@1, pooled", error), ("ECE@1, pooled, floor", floor)):
            rows_of_table.append(Measurement(TABLE, name, metric, 100 * value, "percent", seed))
    return rows_of_table


_kept: list[Callable[[int], Halved]] = []


def _keep(halve: Callable[[int], Halved]) -> None:
    _kept[:] = [halve]


def _call(split: int) -> Halved:
    return _kept[0](split)


def _halved(judged: JudgedCandidates, temperature: float, everything: bool, seed: int, split: int) -> Halved:
    """One random halving: what is measured, and the test queries with the probabilities of their first labels."""
    random = np.random.default_rng([seed, split])
    rows, drawn = random.permutation(len(judged)), replace(judged, draws=random.random(len(judged)))
    fitted = fit_half(drawn.take(rows[: len(rows) // 2]), temperature, by_frequency=True)
    test = drawn.take(rows[len(rows) // 2 :])
    probabilities = fitted.choice.probabilities(test.candidates)
    found: Found = defaultdict(list)
    _recalls(found, miss_thresholds(fitted.probabilities, fitted.held_out), probabilities, test)
    if everything:
        _false_positives(found, fitted, probabilities, test)
        _coverage(found, fitted, probabilities, test)
        _errors(found, probabilities, test)
    return found, (rows[len(rows) // 2 :], probabilities[:, 0])


def _summary(name: str, metric: str, values: list[float], unit: str, seed: int) -> list[Measurement]:
    """Mean over the splits with quantiles, of a share also the standard deviation; over those of the splits that have one."""
    there = np.array(values)[~np.isnan(values)]
    found = []
    if len(there):
        quantiles = from_samples(TABLE, name, metric, there.tolist(), unit, seed)
        found.append(replace(quantiles, value=float(there.mean())))
    if unit == "percent" and len(there) > 1:
        found.append(Measurement(TABLE, name, f"{metric}, sd", float(there.std(ddof=1)), unit, seed))
    if unit == "percent" and len(there) < len(values):
        share = 100 * len(there) / len(values)
        found.append(Measurement(TABLE, name, f"{metric}, splits that can give it", share, unit, seed))
    return found


def _recalls(found: Found, misses: Thresholds, probabilities: Floats, test: JudgedCandidates) -> None:
    asked = test.positives > 0
    recall_at = (test.hits[asked] / test.positives[asked, None]).mean(axis=0).cumsum()
    for wanted in RECALLS:
        threshold, name = misses.at(1 - wanted), f"recall {float(wanted):g}"
        recall = mean = median = fixed = np.nan
        if not np.isnan(threshold):
            sizes = set_sizes(probabilities, test, threshold)
            recall, mean, median = sizes.recall, sizes.mean, sizes.median
            fixed = int(np.searchsorted(recall_at, recall - 1e-12)) + 1
        found[name, "percent"].append(100 * recall)
        found[f"{name}, mean set", "labels"].append(mean)
        found[f"{name}, median set", "labels"].append(median)
        found[f"{name}, k of top-k for the same", "labels"].append(fixed)


def _false_positives(found: Found, fitted: Fitted, probabilities: Floats, test: JudgedCandidates) -> None:
    thresholds = false_positive_thresholds(fitted.probabilities, fitted.held_out)
    for share in SHARES:
        threshold, name = thresholds.at(share), f"false positive share {float(share):g}"
        wrong = recall = mean = np.nan
        if not np.isnan(threshold):
            sizes = set_sizes(probabilities, test, threshold)
            wrong, recall, mean = sizes.false_positive_share, sizes.recall, sizes.mean
        found[name, "percent"].append(100 * wrong)
        found[f"{name}, recall", "percent"].append(100 * recall)
        found[f"{name}, mean set", "labels"].append(mean)


def _coverage(found: Found, fitted: Fitted, probabilities: Floats, test: JudgedCandidates) -> None:
    powerset = fit_powerset(fitted.probabilities, fitted.held_out, [[]] * len(fitted.held_out), norm=2.0)
    scores = np.array(true_costs(powerset, probabilities, test)) / UNIT
    for significance in SIGNIFICANCES:
        inside = float((scores <= powerset.threshold(significance)).mean())
        found[f"region at significance {float(significance):g}, coverage", "percent"].append(100 * inside)


def _errors(found: Found, probabilities: Floats, test: JudgedCandidates) -> None:
    hits, scores = test.hits[:, 0], test.candidates.scores[:, 0].astype(np.float64)
    calibrated = reliability("calibrated", probabilities[:, 0], hits)
    plain = reliability("plain", np.clip(scores, 0, 1), hits)
    values = {"ECE@1": calibrated.error, "ECE@1, floor": calibrated.floor, "ECE@1 of plain scores": plain.error}
    for metric, value in {**values, "mean confidence@1": probabilities[:, 0].mean(), "P@1": hits.mean()}.items():
        found[metric, "percent"].append(100 * float(value))


def _pooled(firsts: list[tuple[npt.NDArray[np.int64], Floats]], judged: JudgedCandidates) -> tuple[float, float]:
    """The expected calibration error of the predictions of all splits at rank 1 in one diagram, and its floor.

    Each query is there for every split that tests it, with another probability and the same truth. So the floor is the mean
    error where the first label of each query is true, or not, once for all splits, with the mean of its probabilities.
    """
    rows = np.concatenate([rows for rows, _ in firsts])
    probabilities = np.concatenate([probabilities for _, probabilities in firsts])
    mean = np.bincount(rows, probabilities, len(judged)) / np.maximum(np.bincount(rows, minlength=len(judged)), 1)
    random = np.random.default_rng(0)
    drawn = [reliability("", probabilities, (random.random(len(judged)) < mean)[rows]) for _ in range(SIMULATIONS)]
    error = reliability("", probabilities, judged.hits[rows, 0]).error
    return error, float(np.mean([one.error for one in drawn]))


def _regions(name: str, padding: int, seed: int) -> list[Measurement]:
    data, directory = Dataset.load("wordnet-8k"), CACHE / "runs" / f"calibration-regions-{padding}-{seed}"
    retriever = Retriever.load(_trained(CASES[0], seed))
    if padding:
        retriever = _padded(retriever, data, padding)
    calibrate(retriever, data, "test", candidates=FEW, seed=seed)
    retriever.save(directory, overwrite=True)
    samples = []
    for _ in range(TURNS):
        done = subprocess.run([sys.executable, "-c", REGIONS, str(directory)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        samples.append(json.loads(done.stdout))

    def of(metric: str, values: list[float], unit: str) -> Measurement:
        return from_samples(TABLE, name, metric, values, unit, seed)

    return [
        of("search alone", [one["search"] for one in samples], "seconds"),
        of("regions at significance 0.1", [one["regions"] for one in samples], "seconds"),
        of("peak memory of regions with search", [one["memory"] / 2**20 for one in samples], "MiB"),
        of("empty regions", [100 * samples[0]["empty"]], "percent"),
        of("sets in a region with any, power of ten", samples[0]["powers"], ""),
    ]


def _padded(retriever: Retriever, data: Dataset, padding: int) -> Retriever:
    """With so many more labels for each one, whose score is 0 for every query: no candidates, as it is less than theirs."""
    labels, embeddings = retriever.labels, retriever.embeddings
    more = np.zeros((padding * len(labels), embeddings.shape[1]), np.float32)
    uids = [*labels.uids.to_pylist(), *(f"padding {number}" for number in range(len(more)))]
    texts = [*labels.texts.to_pylist(), *([""] * len(more))]
    both = np.concatenate([embeddings, more])
    padded = Retriever.from_model(retriever.model, uids, texts, retriever.config, "exact", both)
    found, _ = padded.search(data.split("test").texts.to_pylist(), FEW)
    if found.max() >= len(labels):
        raise RuntimeError("Labels that are only there to be many were found by queries.")
    return padded
