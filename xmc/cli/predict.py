"""`xmc predict`: files of texts in, a folder of labels and scores out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from xmc.cli import complete
from xmc.cli.groups import with_groups
from xmc.cli.job_options import Input, JobArguments, tell

if TYPE_CHECKING:
    from xmc.search.passages import Combine, PassageOptions


@with_groups
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
    rerank: Annotated[
        bool | None,
        typer.Option("--rerank/--no-rerank", help="Demand the run's re-ranker, or leave it out.", show_default=False),
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
    passages: Annotated[
        int | None,
        typer.Option(min=1, help="Cut each text into passages of this number of tokens, and combine their scores."),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens from one passage to the next.", show_default="three quarters of --passages"),
    ] = None,
    combine: Annotated[
        Literal["logmeanexp", "max", "sum"] | None,
        typer.Option(help="How scores of passages are combined.", show_default="logmeanexp"),
    ] = None,
    *,
    job: JobArguments,
    embedding_column: Annotated[str | None, typer.Option(help="Column of embeddings, in place of texts.")] = None,
    keep_columns: Annotated[
        bool, typer.Option("--keep-columns", help="Write all columns of the input beside the result.")
    ] = False,
    keep_column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Write this column of the input too; may be given several times."),
    ] = None,
    format: Annotated[
        str, typer.Option(help="parquet, csv or jsonl: of what is written.", autocompletion=complete.output_formats)
    ] = "parquet",
    separator: Annotated[
        str | None,
        typer.Option(help="CSV: what is between the labels, and the scores, in a cell.", show_default="a comma"),
    ] = None,
    csv_formulas: Annotated[
        Literal["escape", "keep"] | None,
        typer.Option(
            help="CSV: what becomes of texts that a spreadsheet would run. escape: an apostrophe is put before them; keep: "
            "they are left as they are.",
            show_default="escape",
        ),
    ] = None,
    index_shards: Annotated[
        int, typer.Option(min=0, help="Ray: number of actors that the labels are split between.")
    ] = 0,
) -> None:
    """Predict labels for every row, in parts that appear whole or not at all, in bounded memory."""
    from xmc.batch import predict_files
    from xmc.errors import ConfigError

    if keep_columns and keep_column:
        raise ConfigError("--keep-columns keeps all columns, --keep-column those that are named; give one of them.")
    summary = predict_files(
        run,
        source,
        output,
        k,
        where=where,
        rerank=rerank,
        label_texts=label_texts,
        probabilities=probabilities,
        sets=sets,
        decide=decide,
        passages=_passages(passages, stride, combine),
        keep_columns=keep_column or keep_columns,
        format=format,
        separator=separator,
        formulas=csv_formulas,
        options=job.options(embedding_column, index_shards),
    )
    tell(summary, f"predicted {summary.predicted:,} of {summary.rows:,} rows into {output}")


def _passages(tokens: int | None, stride: int | None, combine: Combine | None) -> PassageOptions | None:
    """How texts are cut into passages; None for whole texts. ConfigError for what belongs to passages without them."""
    from xmc.errors import ConfigError
    from xmc.search.passages import PassageOptions

    if tokens is not None:
        return PassageOptions(tokens, stride, combine or "logmeanexp")
    if stride is not None or combine is not None:
        raise ConfigError(
            "--stride and --combine are for passages; name their length with --passages, or leave them out."
        )
    return None
