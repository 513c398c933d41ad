"""Checkpoints of a run: gathered from its parts, and given back to them."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from torch import Tensor

from xmc.config import TransformerConfig
from xmc.training.checkpoints import Checkpoints, require_same, settings_that_matter
from xmc.training.distributed.sharding import is_split
from xmc.training.parts import Progress, TrainingRun, bytes_of
from xmc.training.weights import shared_tensors

__all__ = ["bytes_on_disk", "resume_run", "write_checkpoint"]

logger = logging.getLogger("xmc.training")


def write_checkpoint(run: TrainingRun, checkpoints: Checkpoints) -> None:
    """Write what `resume_run` takes up; the root writes, every process gives its rows."""
    tensors: dict[str, Tensor] = {}
    for part in run.parts:
        state = part.state()
        split = {name: tensor for name, tensor in state.shared.items() if is_split(tensor)}
        tensors |= {name: tensor for name, tensor in state.shared.items() if name not in split}
        for name, tensor in {**split, **state.rows}.items():
            gathered = run.world.to_root(tensor)
            if gathered is not None:
                tensors[name] = gathered
    if run.world.is_root:
        checkpoints.save(run.progress.steps, tensors, {**_identity(run), "progress": asdict(run.progress)})


def resume_run(run: TrainingRun, checkpoints: Checkpoints) -> None:
    """Take up the latest checkpoint; StoreError when it is of another configuration or data set. Nothing without one."""
    checkpoint = checkpoints.latest()
    if checkpoint is None:
        logger.info("there is no checkpoint in %s; training begins at the first step", checkpoints.directory)
        return
    require_same(checkpoint, _identity(run))
    for part in run.parts:
        part.load_state(run, checkpoint)
    run.progress = Progress.from_dict(checkpoint.state["progress"])
    logger.info("resumed after step %d of %d from %s", run.progress.steps, run.steps, checkpoint.directory)


def bytes_on_disk(run: TrainingRun) -> int:
    """Of a run directory, twice while one is replaced, and of one more checkpoint than are kept."""
    labels, dimension, model = len(run.data.label_features), run.model.dimension, run.model
    saved = bytes_of(shared_tensors(model).values())  # adapters are saved alone
    transformer = TransformerConfig.of(run.config.encoder)
    if transformer is None or not transformer.lora.rank:
        saved = bytes_of(parameter for name, parameter in model.named_parameters() if name != "label_vectors")
    vectors = 0 if model.label_vectors is None else 4 * labels * dimension
    directory = saved + vectors + 8 * labels * dimension
    checkpoint = sum(part.checkpoint_bytes(run) for part in run.parts)
    return 2 * directory + (run.config.checkpoint.keep + 1) * checkpoint


def _identity(run: TrainingRun) -> dict[str, Any]:
    """What a checkpoint must have in common with the run that takes it up."""
    return {"config": settings_that_matter(run.config), "dataset": run.data.dataset.fingerprint}
