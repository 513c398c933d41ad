"""`xmc votes`: weak sources that vote on pairs of a data set's training queries and labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xmc.cli.console import say, shell
from xmc.cli.data.options import Overwrite
from xmc.cli.devices import Device, opened
from xmc.cli.stage_options import Data, RunDirectory

if TYPE_CHECKING:
    from xmc.data.dataset import Dataset
    from xmc.data.evidence import Votes

__all__ = ["app"]

app = typer.Typer(
    help="Let weak sources vote on pairs of training queries and labels, for supervision.estimator.",
    no_args_is_help=True,
)

Out = Annotated[
    Path, typer.Option(help="Data set directory to write: the data set with these votes beside those it has.")
]


@app.command()
def names(
    dataset: Data,
    out: Out,
    separator: Annotated[
        str | None,
        typer.Option(
            help="What stands between several names in a label's text, such as a comma.", show_default="one name"
        ),
    ] = None,
    source: Annotated[str, typer.Option(help="Name of the source.")] = "names",
    overwrite: Overwrite = False,
) -> None:
    """Vote for labels whose name stands in a query's text as whole words, whatever the case.

    The name of a label is its text, up to the first bracket, colon or end of a line. Of names that overlap the longest counts.
    A name that stands in more than one of a hundred texts counts less, and so does one of several labels.
    """
    from xmc.data.name_votes import name_votes

    data = _opened(dataset, source, out, overwrite)
    _write(data, name_votes(data, source, separator), out, overwrite)


@app.command()
def neighbours(
    run: RunDirectory,
    dataset: Data,
    out: Out,
    view: Annotated[
        list[Path] | None,
        typer.Option(help="Another run whose neighbours count too; may be given several times.", show_default=False),
    ] = None,
    neighbours: Annotated[
        int | None, typer.Option(min=1, help="Queries that vote for one.", show_default="chosen from 5 to 30")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Least cosine of a neighbour.", show_default="chosen from 0 to 0.9")
    ] = None,
    source: Annotated[str, typer.Option(help="Name of the source.")] = "neighbours",
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Vote for the labels of each training query's nearest other training queries, by the embeddings of one or several runs.

    How many neighbours vote, and how near they must be, is chosen so that votes for given labels are most nearly equal and sum
    to 1: only given pairs are looked at, so that missing ones do no harm.
    """
    from xmc.evaluation.neighbour_votes import neighbour_votes

    data = _opened(dataset, source, out, overwrite)
    retrievers = [opened(directory, device) for directory in (run, *(view or []))]
    found = neighbour_votes(retrievers, data, source, neighbours, threshold)
    say(
        f"{found.neighbours} neighbours of a cosine of at least {found.threshold:g} vote; squared error of votes for given "
        f"labels {found.loss:.4f}, on the half of the queries that this was not chosen on"
    )
    _write(data, found.votes, out, overwrite)


def _opened(name: str, source: str, out: Path, overwrite: bool) -> Dataset:
    """The data set, once it is sure that it may be written with votes of this source."""
    from xmc.data.dataset import Dataset
    from xmc.data.directory import require_free_directory
    from xmc.data.evidence import EVIDENCE
    from xmc.errors import ConfigError

    data = Dataset.load(name)
    require_free_directory(out, overwrite, [f"{kind}-{split}.parquet" for kind in EVIDENCE for split in data.splits])
    there = data.votes("train")
    if not source:
        raise ConfigError("--source must be a name.")
    if there is not None and source in there.names:
        raise ConfigError(
            f"The data set {data.name!r} has votes of a source {source!r} already; name another with --source."
        )
    return data


def _write(data: Dataset, votes: Votes, out: Path, overwrite: bool) -> None:
    """Write the data set with the votes, and say how many there are."""
    import numpy as np

    split = data.split("train")
    data.with_evidence("train", votes=votes.joined(data.votes("train"))).save(out, overwrite)
    voted = len(np.unique(votes.queries))
    say(f"{len(votes):,} votes of {', '.join(votes.names)} on {voted:,} of {len(split):,} training queries")
    given = _given(data, votes)
    if given and split.positives.nnz:
        say(f"{given:,} of them are for given pairs: {given / split.positives.nnz:.1%} of these")
    say(f"data set in {out}")
    if not len(votes):
        return
    recipe = "missing-labels" if given else "voted-labels"
    say(f"next: {shell('xmc', 'train', recipe, '--dataset', out, '--out', f'runs/{out.name}')}")
    if given:
        say(
            "Set supervision.recorded there to the share of the relevant pairs that is given: votes for other pairs are "
            "believed as far as it leaves room for them."
        )


def _given(data: Dataset, votes: Votes) -> int:
    """Number of votes that are for given pairs."""
    from scipy.sparse import csr_matrix

    positives = data.split("train").positives.astype(bool)
    return int(csr_matrix((votes.values > 0, (votes.queries, votes.labels)), positives.shape).multiply(positives).nnz)
