"""Evaluation on held-out queries while training goes: the best model is kept, and training stops some time after it."""

from __future__ import annotations

import logging
from pathlib import Path

from xmc.evaluation.evaluate import evaluate_split
from xmc.search.retriever import Retriever
from xmc.training.log import TrainingLog
from xmc.training.parts import TrainingRun
from xmc.training.result import Validated
from xmc.training.saving import retriever_of, save_run

__all__ = ["validate_where_due"]

logger = logging.getLogger("xmc.training")


def validate_where_due(run: TrainingRun, out: Path, log: TrainingLog) -> Validated | None:
    """Evaluate where it is time to, save the run if it is the best so far, and say in its progress whether training is done.

    Returns the evaluation, in every process; None where it is not time.
    """
    every = run.config.validation.steps or run.steps_per_epoch
    if run.data.validation is None or run.progress.steps % every:
        return None
    progress, name = run.progress, run.config.validation.metric
    retriever = retriever_of(run, "exact")
    values = run.world.from_root(None if retriever is None else _evaluate(run, retriever, log))
    validated = Validated(progress.steps, _epoch(run) + 1, values)
    progress.history.append(validated)
    progress.since_best += 1
    if progress.best is None or values[name] > progress.best:
        progress.best, progress.since_best = values[name], 0
        save_run(run, retriever, out, False, values)
    progress.finished = progress.since_best >= run.config.validation.patience
    if progress.finished:
        logger.info("stopped: no better %s for %d evaluations", name, progress.since_best)
    return validated


def _epoch(run: TrainingRun) -> int:
    """The epoch of the last step, counted from 0."""
    return (run.progress.steps - 1) // run.steps_per_epoch


def _evaluate(run: TrainingRun, retriever: Retriever, log: TrainingLog) -> dict[str, float]:
    data = run.data
    assert data.validation is not None
    evaluation = evaluate_split(retriever, data.dataset, data.validation, data.documents, data.validation_filter)
    values = evaluation.values
    steps = run.progress.steps
    log.write(steps, epoch=_epoch(run), validation=values)
    logger.info("step %d: P@1 %.2f, P@5 %.2f on the held-out queries", steps, values["P@1"], values["P@5"])
    return values
