"""Commands that the command line proposes when one is done; each of them works as it stands."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xmc.cli.console import shell

if TYPE_CHECKING:
    from xmc.calibration.calibration import Calibration
    from xmc.data.dataset import Dataset
    from xmc.errors import XMCError

__all__ = [
    "after_calibration",
    "after_conversion",
    "after_error",
    "after_new_configuration",
    "after_new_index",
    "after_push",
    "after_training",
]

EXAMPLE_WORDS = 8
"""Words of a query in a command, at most."""
EXAMPLE_RECALL = "recall=0.8"
DEFAULT_K = 10
"""Labels that `xmc predict` asks for by default."""


def after_error(error: XMCError) -> list[str]:
    """The same command with the options that do without the error, where it names some."""
    return [_again(error.again)] if error.again else []


def after_conversion(directory: Path, positives: Mapping[str, int], again: Sequence[str] = ()) -> list[str]:
    """Convert again where options would mend something; train on the data set, where its split train has a positive pair.

    positives: number of positive pairs by split. again: those options.
    """
    mended = [_again([*again, *({"--overwrite"} - set(sys.argv))])] if again else []
    if not positives.get("train"):
        return mended
    return [
        *mended,
        shell("xmc", "train", "--dataset", directory, "--out", _free(Path("runs") / directory.resolve().name)),
    ]


def after_training(run: Path, name: str, dataset: Dataset) -> list[str]:
    """Evaluate on a split that was not trained on, if there is one; else search with a query, and split the data set.

    name: the data set's name or directory, as it was given.
    """
    for split in sorted(set(dataset.splits) - {"train"}, key=lambda split: split != "test"):
        if dataset.targets(split).truth.nnz:
            return [shell("xmc", "evaluate", run, name, *([] if split == "test" else ["--split", split]))]
    texts = (text for text in dataset.split("train").texts.to_pylist() if text and text.strip())
    words = next(texts, "").split()[:EXAMPLE_WORDS]
    return [shell("xmc", "search", run, " ".join(words))] if words else []


def after_calibration(run: Path, dataset: Dataset, result: Calibration) -> str:
    """Predict the queries of a split, with all that calibration gives and the split's size allows."""
    given = result.source.split
    split = next(name for name in (given, "test", "train") if name in dataset.splits)
    sets = ["--sets", EXAMPLE_RECALL] if EXAMPLE_RECALL in result.sizes else []
    queries = (dataset.directory or Path()) / f"queries-{split}.parquet"
    k = ["--k", result.candidates] if result.candidates < DEFAULT_K else []
    output = _free(run.with_name(f"{run.name}.predictions"))
    return shell("xmc", "predict", run, *k, "--probabilities", *sets, "--input", queries, "--output", output)


def after_new_index(run: Path, result: Calibration) -> str | None:
    """Calibrate again; None where only the name of the data set is known, and not where it is."""
    from xmc.data.dataset import SHIPPED

    source = result.source
    if not (SHIPPED / source.dataset / "dataset.json").is_file():
        return None
    split = [] if source.split == "calibration" else ["--split", source.split]
    return shell("xmc", "calibrate", run, source.dataset, *split)


def after_new_configuration(file: Path) -> str:
    """Train with a configuration on the data set that is shipped."""
    return shell("xmc", "train", file, "--dataset", "wordnet-8k", "--out", _free(Path("runs") / file.stem))


def after_push(repo: str, revision: str | None) -> str:
    """Download a run again that was uploaded to a branch."""
    named = [] if revision is None else ["--revision", revision]
    return shell("xmc", "hub", "pull", repo, _free(Path("runs") / repo.rpartition("/")[2]), *named)


def _again(options: Sequence[str]) -> str:
    """The command that was given, with further options; those that were given with another value are replaced."""
    replaced = {option for option in options if option.startswith("--")}
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        if word in replaced:
            next(words, None)
        elif word.partition("=")[0] not in replaced:
            kept.append(word)
    return shell("xmc", *kept, *options)


def _free(path: Path) -> Path:
    """The path, or the first one with a number behind it, where nothing is yet."""
    number = 1
    candidate = path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate
