"""`xmc labels`: labels of a run are added, updated and removed, as the rows of a file say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from xmc.cli.console import say
from xmc.cli.devices import Device, opened
from xmc.cli.job_options import Delimiter, Encoding, MaxLine

if TYPE_CHECKING:
    import pyarrow as pa

    from xmc.data.files import TextForm
    from xmc.data.label_rows import LabelRows
    from xmc.search.entry_rate import Scaling
    from xmc.search.retriever import Retriever

__all__ = ["app"]

app = typer.Typer(help="Add, update and remove labels of a run, by a file.", no_args_is_help=True)

Run = Annotated[Path, typer.Argument(help="Run directory.")]
File = Annotated[Path, typer.Argument(help="Parquet, Arrow, CSV or JSONL file with a row for each label.")]
Out = Annotated[Path | None, typer.Option(help="Run directory to write; the same one by default.", show_default=False)]
Score = Annotated[
    Literal["rate", "raw"],
    typer.Option(
        help="rate: new labels enter the best ten of queries as often as trained ones; raw: scores are left as they are."
    ),
]
ExpectedRate = Annotated[
    float | None,
    typer.Option(
        help="Share of queries whose best ten a label enters, in the mean, where it is known.", show_default=False
    ),
]
Separator = Annotated[str, typer.Option(help="Between examples, where a cell holds several as one string.")]


@app.command()
def add(
    run: Run,
    file: File,
    out: Out = None,
    score: Score = "rate",
    expected_rate: ExpectedRate = None,
    separator: Separator = "|",
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    max_line: MaxLine = None,
    device: Device = "auto",
) -> None:
    """Add labels: columns uid, text, examples (queries of a label), negatives (queries that it is not for), and further ones.

    A label has a text, examples or both.
    """
    from xmc.data.files import TextForm

    retriever, rows = _opened(run, file, out, device, TextForm(encoding, delimiter, separator, max_line))
    problems = {}
    for row, there in enumerate(retriever.labels.index_rows(rows.uids) >= 0):
        if there:
            problems[row] = f"the label {rows.uids[row]!r} is already there; update it, or give another uid."
        elif not (rows.texts[row] or "").strip() and not rows.examples[row]:
            problems[row] = f"the label {rows.uids[row]!r} has neither a text nor an example."
    rows.refuse(problems)
    columns = _columns(retriever, rows)
    scalings = retriever.add_labels(
        rows.texts,
        rows.uids,
        columns if columns.num_columns else None,
        **_examples(rows, range(len(rows))),
        score=score,
        expected_rate=expected_rate,
    )
    _written(retriever, run, out, f"{len(rows):,} labels added", scalings)


@app.command()
def update(
    run: Run,
    file: File,
    out: Out = None,
    score: Score = "rate",
    expected_rate: ExpectedRate = None,
    separator: Separator = "|",
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    max_line: MaxLine = None,
    device: Device = "auto",
) -> None:
    """Make labels anew from texts and examples, and set further columns; the columns of the file are as for `add`.

    A label without a text in the file keeps its own. One without text and examples is not made anew.
    """
    from xmc.data.files import TextForm

    retriever, rows = _opened(run, file, out, device, TextForm(encoding, delimiter, separator, max_line))
    _require_there(retriever, rows)
    anew = [
        row for row in range(len(rows)) if (rows.texts[row] or "").strip() or rows.examples[row] or rows.negatives[row]
    ]
    columns = _columns(retriever, rows)
    if not columns.num_columns:
        idle = set(range(len(rows))) - set(anew)
        rows.refuse({row: f"the row of the label {rows.uids[row]!r} says nothing beside its uid." for row in idle})
    scalings: tuple[Scaling, ...] = ()
    if anew:
        uids = [rows.uids[row] for row in anew]
        kept = retriever.texts(uids)
        texts = [rows.texts[row] or text for row, text in zip(anew, kept, strict=True)]
        options: dict[str, Any] = {**_examples(rows, anew), "score": score, "expected_rate": expected_rate}
        scalings = retriever.update_labels(texts, uids, **options)
    if columns.num_columns and len(rows):
        retriever.set_columns(columns.append_column("uid", [rows.uids]))
    _written(retriever, run, out, f"{len(rows):,} labels updated", scalings)


@app.command()
def remove(
    run: Run,
    file: File,
    out: Out = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    max_line: MaxLine = None,
    device: Device = "auto",
) -> None:
    """Remove labels: the column uid names them, and others do not count."""
    from xmc.data.files import TextForm

    retriever, rows = _opened(run, file, out, device, TextForm(encoding, delimiter, "|", max_line))
    _require_there(retriever, rows)
    retriever.remove_labels(rows.uids)
    _written(retriever, run, out, f"{len(rows):,} labels removed", ())


def _opened(run: Path, file: Path, out: Path | None, device: str, form: TextForm) -> tuple[Retriever, LabelRows]:
    """The run and the rows of the file, once it is sure that a run may be written."""
    from xmc.data.label_rows import LabelRows
    from xmc.search.run_directory import RunDirectory

    RunDirectory(out or run).require_free(overwrite=_in_place(run, out))
    rows = LabelRows.read(file, form)
    return opened(run, device), rows


def _in_place(run: Path, out: Path | None) -> bool:
    return out is None or out.resolve() == run.resolve()


def _require_there(retriever: Retriever, rows: LabelRows) -> None:
    found = retriever.labels.index_rows(rows.uids)
    missing = [row for row, place in enumerate(found.tolist()) if place < 0]
    rows.refuse({row: f"there is no label {rows.uids[row]!r} in this run." for row in missing})


def _examples(rows: LabelRows, chosen: Any) -> dict[str, Any]:
    """The arguments for examples; negatives only where a label has some."""
    examples, negatives = ([lists[row] for row in chosen] for lists in (rows.examples, rows.negatives))
    return {"examples": examples, "negatives": negatives if any(negatives) else None}


def _columns(retriever: Retriever, rows: LabelRows) -> pa.Table:
    """The further columns, strings as the type that the run's labels have. DataError for values that are not of it.

    An empty cell is null there.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from xmc.errors import DataError

    columns, known = rows.columns, retriever.labels.columns
    for number, name in enumerate(columns.column_names):
        kind = known.field(name).type if name in known.names else None
        if kind is None or columns[name].type != pa.string() or kind == pa.string():
            continue
        written = pc.if_else(pc.equal(columns[name], ""), None, columns[name])
        try:
            columns = columns.set_column(number, name, written.cast(kind))
        except pa.ArrowException as error:
            raise DataError(
                f"{rows.file}: the column {name!r} of the run's labels is of type {kind}, which values of the file are not: "
                f"{error}"
            ) from error
    return columns


def _written(retriever: Retriever, run: Path, out: Path | None, done: str, scalings: tuple[Scaling, ...]) -> None:
    """Write the run, and say what changed."""
    in_place = _in_place(run, out)
    retriever.save(out or run, overwrite=in_place)
    say(done)
    for scaling in scalings:
        if math.isnan(scaling.rate):
            say(f"{scaling.labels:,} of them by raw scores")
        else:
            say(
                f"{scaling.labels:,} of them scaled by {scaling.scale:.3f}: one enters the best ten of {scaling.rate:.3%} of "
                f"the run's stored queries, in the mean"
            )
    say(f"run with {len(retriever):,} labels in {out or run}")
    if retriever.calibration is not None:
        say("its calibration is for the labels before; calibrate again")
