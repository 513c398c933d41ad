"""`xmc train`: a configuration and a data set in, a run directory out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def train(
    config: Annotated[
        Path | None, typer.Argument(help="YAML configuration; the defaults are used without one.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Name of a shipped data set, or a data set directory.")] = "wordnet-8k",
    out: Annotated[Path, typer.Option(help="Run directory to write.")] = Path("runs/run"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: --set epochs=4 --set static.dimension=512.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that is already there.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on from the latest checkpoint, where there is one.")] = False,
    tensorboard: Annotated[bool, typer.Option(help="Write the log for TensorBoard too.")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Only estimate memory and work; nothing is trained or written.")
    ] = False,
) -> None:
    """Train on a data set's train split. Ctrl-C ends early and still writes a run that can be loaded.

    For several processes: torchrun --nproc-per-node N -m xmc train ...
    """
    from xmc.config import TrainConfig
    from xmc.data.dataset import Dataset
    from xmc.training.estimate import estimate
    from xmc.training.trainer import train as run

    overrides = [*(settings or []), *(["tensorboard=true"] if tensorboard else [])]
    options = TrainConfig.load(config, overrides) if config else TrainConfig.from_mapping({}, overrides, "--set")
    console = Console()
    if dry_run:
        console.print(estimate(Dataset.load(dataset), options, int(os.environ.get("WORLD_SIZE", "1"))).table())
        return
    result = run(Dataset.load(dataset), options, out, overwrite=overwrite, resume=resume)
    if int(os.environ.get("RANK", "0")):
        return
    state = "interrupted" if result.interrupted else "trained"
    console.print(
        f"{state}: {result.steps} steps in {result.seconds:.1f} s, last loss {result.loss:.4f}, run in {result.directory}"
    )
    console.print(f"next: xmc evaluate {result.directory} {dataset}", highlight=False)
