"""`xmc predict`: a Parquet file of texts in, a Parquet file of labels and scores out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    input_file: Annotated[Path, typer.Option("--input", help="Parquet file with the columns uid and text.")],
    output_file: Annotated[Path, typer.Option("--output", help="Parquet file to write: uid, labels, scores.")],
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Labels for each text.")] = 10,
    where: Annotated[
        str | None, typer.Option(help="Condition over the label columns, such as 'market == \"de\" and price < 10'.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows read and predicted at once.")] = 4096,
) -> None:
    """Predict labels for every row, in bounded memory; the output appears whole or not at all."""
    from xmc.batch import predict_parquet
    from xmc.retriever import Retriever

    rows = predict_parquet(Retriever.load(run), input_file, output_file, k, batch_size, where)
    typer.echo(f"predicted {rows:,} rows into {output_file}")
