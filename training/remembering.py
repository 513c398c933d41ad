"""A memory of training queries for a finished run."""

from __future__ import annotations

import logging
from pathlib import Path

from xmc.data.dataset import Dataset
from xmc.errors import DataError
from xmc.evaluation.memory import fit_memory, memory_by_default
from xmc.search.retriever import Retriever

__all__ = ["add_memory"]

logger = logging.getLogger("xmc.training")


def add_memory(run: Path, dataset: Dataset, memory: str) -> None:
    """Have a run directory's searches recall training queries, and write the run with them.

    memory: "none", "auto", "own" or a directory, see TrainConfig.memory. Where too few queries were kept aside to choose how
    remembered ones vote, "auto" leaves the run as it is; others vote by the default rule, and the log says so.
    """
    if memory == "none":
        return
    retriever = Retriever.load(run)
    try:
        fitted = fit_memory(retriever, dataset, memory)
    except DataError as error:
        if memory == "auto":
            logger.info("no memory of queries: %s", error)
            return
        logger.warning("how remembered queries vote is not fitted, but left at the default: %s", error)
        memory_by_default(retriever, dataset, memory)
    else:
        if fitted.memory is None:
            logger.info("no memory of queries: it does not gain")
            return
    retriever.save(run, overwrite=True)
