"""`xmc train`: a configuration and a data set in, a run directory out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from xmc.cli.console import console, say
from xmc.cli.next_commands import after_training


def train(
    config: Annotated[
        Path | None,
        typer.Argument(help="YAML configuration, or the key for --explain; the defaults are used without one."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Name of a shipped data set, or a data set directory; required.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="Run directory to write.")] = Path("runs/run"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: --set epochs=4 --set encoder.dimension=512.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that is already there.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on from the latest checkpoint, where there is one.")] = False,
    tensorboard: Annotated[bool, typer.Option(help="Write the log for TensorBoard too.")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Only estimate memory and work; nothing is trained or written.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Only print what a key, a section or, without one, every key means.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Only print the configuration's JSON schema.")] = False,
) -> None:
    """Train on a data set's train split. Ctrl-C ends early and still writes a run that can be loaded.

    For several processes: torchrun --nproc-per-node N -m xmc train ...
    """
    from xmc.config import TrainConfig

    if explain:
        _explain(None if config is None else str(config))
        return
    if schema:
        typer.echo(json.dumps(TrainConfig.model_json_schema(), indent=2))
        return
    from xmc.data.dataset import Dataset
    from xmc.errors import ConfigError
    from xmc.training.estimate import estimate
    from xmc.training.trainer import train as run

    overrides = [*(settings or []), *(["tensorboard=true"] if tensorboard else [])]
    options = TrainConfig.load(config, overrides) if config else TrainConfig.from_mapping({}, overrides, "--set")
    if dataset is None:
        raise ConfigError(
            "Name what to train on: --dataset DIRECTORY, as `xmc data convert` writes it, or --dataset wordnet-8k, which comes "
            "with xmc."
        )
    data = Dataset.load(dataset)
    if dry_run:
        console.print(estimate(data, options, int(os.environ.get("WORLD_SIZE", "1"))).table())
        return
    result = run(data, options, out, overwrite=overwrite, resume=resume)
    if int(os.environ.get("RANK", "0")):
        return
    say(str(result))
    for command in after_training(result.directory, dataset, data):
        say(f"next: {command}")


def _explain(key: str | None) -> None:
    """Print type, bounds, default and meaning of keys."""
    from xmc.config.explain import explain

    keys, note = explain(key)
    if note:
        console.print(note, style="yellow", markup=False, highlight=False)
    for item in keys:
        of_kind = f" ({item.kind})" if item.kind and f".{item.kind}." not in item.name else ""
        facts = [item.type, item.bounds, f"default {item.default}" if item.default else ""]
        line = Text.assemble((item.name, "bold"), of_kind, "  ", (", ".join(filter(None, facts)), "cyan"))
        console.print(line, soft_wrap=True, highlight=False)
        console.print(Padding(Text(item.meaning), (0, 0, 0, 4)))
