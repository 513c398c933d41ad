"""A re-ranker for a finished run."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from xmc.data.dataset import Dataset
from xmc.errors import DataError
from xmc.evaluation.fit_reranker import fit_reranker
from xmc.search.retriever import Retriever

__all__ = ["add_reranker"]

logger = logging.getLogger("xmc.training")


def add_reranker(run: Path, dataset: Dataset, kind: str) -> None:
    """Fit a re-ranker for a run directory, and write the run with it.

    kind: "trees", "logistic", "none", or "auto", see TrainConfig.rerank. Where it cannot be fitted, for there are too few
    queries to learn from, the run stays as it is, and the log says so.
    """
    if kind == "none":
        return
    if kind == "auto" and importlib.util.find_spec("sklearn") is None:
        logger.info("no re-ranker: scikit-learn, which fits it, is not installed")
        return
    retriever = Retriever.load(run)
    try:
        fitted = fit_reranker(retriever, dataset, model="trees" if kind == "auto" else kind)
    except DataError as error:
        logger.log(logging.INFO if kind == "auto" else logging.WARNING, "no re-ranker: %s", error)
        return
    if kind == "auto" and not fitted.gains:
        logger.info("no re-ranker: it does not gain, %r", fitted)
        return
    retriever.save(run, overwrite=True)
