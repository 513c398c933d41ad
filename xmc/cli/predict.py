"""`xmc predict`: files of texts in, a folder of labels and scores out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from xmc.batch import Summary

Input = Annotated[
    str,
    typer.Option(
        "--input",
        help="Parquet, Arrow, CSV or JSONL file, folder, glob, or address such as s3://bucket/folder.",
        show_default=False,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what another run of this job left.")]
OnBadRow = Annotated[
    str, typer.Option(help="error: stop at the first; null: write it without a result; drop: leave it out.")
]
Uid = Annotated[str, typer.Option(help="Column of uids.")]
Text = Annotated[str, typer.Option(help="Column of texts.")]
Tokens = Annotated[str | None, typer.Option(help="Column of token lists, in place of texts.")]
PartRows = Annotated[int, typer.Option(min=1, help="Input rows of one part, which is what a kill can lose.")]
Engine = Annotated[str, typer.Option(help="local, or ray.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Ray: actors that hold the model.")]
Address = Annotated[str | None, typer.Option(help="Ray: address of a cluster; by default this machine.")]


def predict(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    source: Input,
    output: Annotated[
        str, typer.Option("--output", help="Folder to write: parts with uid, labels, scores.", show_default=False)
    ],
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Labels for each row.")] = 10,
    where: Annotated[
        str | None, typer.Option(help="Condition over the label columns, such as 'market == \"de\" and price < 10'.")
    ] = None,
    label_texts: Annotated[bool, typer.Option("--label-texts", help="Write the labels' texts too.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Calibrated run: write the probability of each label too.")
    ] = False,
    sets: Annotated[
        str | None,
        typer.Option(
            help="Calibrated run: write label sets too that guarantee recall=0.9, false-positive-share=0.1 or significance=0.1."
        ),
    ] = None,
    decide: Annotated[
        str | None,
        typer.Option(
            help="Calibrated run: write what to do with each label too, by thresholds of probability: automatic=0.9,person=0.1."
        ),
    ] = None,
    resume: Resume = False,
    on_bad_row: OnBadRow = "error",
    uid_column: Uid = "uid",
    text_column: Text = "text",
    tokens_column: Tokens = None,
    embedding_column: Annotated[str | None, typer.Option(help="Column of embeddings, in place of texts.")] = None,
    rows_per_part: PartRows = 100_000,
    engine: Engine = "local",
    workers: Workers = None,
    address: Address = None,
    index_shards: Annotated[int, typer.Option(min=0, help="Ray: split the labels between so many actors.")] = 0,
) -> None:
    """Predict labels for every row, in parts that appear whole or not at all, in bounded memory."""
    from xmc.batch import Columns, JobOptions, predict_files

    columns = Columns(uid_column, text_column, tokens_column, embedding_column)
    options = JobOptions(columns, on_bad_row, rows_per_part, resume, engine, workers, address, index_shards)
    summary = predict_files(
        run,
        source,
        output,
        k,
        where=where,
        label_texts=label_texts,
        probabilities=probabilities,
        sets=sets,
        decide=decide,
        options=options,
    )
    tell(summary, f"predicted {summary.predicted:,} of {summary.rows:,} rows into {output}")


def tell(summary: Summary, sentence: str) -> None:
    """Print what a job did, and what it left out or noticed."""
    rate = f", {summary.rows / summary.seconds:,.0f} rows/s" if not summary.resumed and summary.seconds else ""
    typer.echo(f"{sentence} ({summary.seconds:.1f} s{rate})")
    if summary.resumed:
        typer.echo(f"{summary.resumed:,} parts were there already")
    for reason, count in sorted(summary.bad.items()):
        typer.echo(f"bad: {count:,} x {reason}")
    for remark, count in sorted(summary.remarks.items()):
        typer.echo(f"noticed: {count:,} x {remark}")
    if summary.duplicate_uids:
        typer.echo(f"noticed: {summary.duplicate_uids:,} x uid that an earlier row has")
