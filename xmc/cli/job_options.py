"""Options that batch jobs share, and what is printed when one is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from xmc.cli.console import say
from xmc.cli.data.options import Delimiter, Encoding, MaxLine, Uid
from xmc.cli.devices import Device, devices_named

if TYPE_CHECKING:
    from xmc.batch import JobOptions, Summary

__all__ = ["Delimiter", "Encoding", "Input", "JobArguments", "MaxLine", "Text", "tell"]

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
    Literal["error", "null", "drop"],
    typer.Option(help="error: stop at the first; null: write it without a result; drop: leave it out."),
]
Text = Annotated[
    str | None,
    typer.Option(
        help='Column of texts; by default that of the run\'s data set where the file has it, else "text".',
        show_default=False,
    ),
]
Tokens = Annotated[str | None, typer.Option(help="Column of token lists, in place of texts.")]
PartRows = Annotated[int, typer.Option(min=1, help="Input rows of one part, which is what a kill can lose.")]
Engine = Annotated[Literal["local", "ray"], typer.Option(help="Where it runs.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Ray: actors that hold the model.")]
Address = Annotated[str | None, typer.Option(help="Ray: address of a cluster; by default this machine.")]


@dataclass(frozen=True)
class JobArguments:
    """A group of options, see xmc.cli.groups."""

    resume: Resume = False
    on_bad_row: OnBadRow = "error"
    uid_column: Uid = None
    text_column: Text = None
    tokens_column: Tokens = None
    encoding: Encoding = None
    delimiter: Delimiter = None
    max_line: MaxLine = None
    rows_per_part: PartRows = 100_000
    engine: Engine = "local"
    workers: Workers = None
    address: Address = None
    device: Device = "auto"

    def options(self, embedding_column: str | None = None, index_shards: int = 0) -> JobOptions:
        """What a job is told, with what not every job takes. Raises ConfigError for values that do not fit together."""
        from xmc.batch import Columns, JobOptions

        return JobOptions(
            columns=Columns(
                uid=self.uid_column,
                text=self.text_column,
                tokens=self.tokens_column,
                embedding=embedding_column,
                encoding=self.encoding,
                delimiter=self.delimiter,
                max_line=self.max_line,
            ),
            on_bad_row=self.on_bad_row,
            rows_per_part=self.rows_per_part,
            resume=self.resume,
            engine=self.engine,
            workers=self.workers,
            address=self.address,
            index_shards=index_shards,
            device=devices_named(self.device),
        )


def tell(summary: Summary, sentence: str) -> None:
    """Print what a job did, and what it left out or noticed."""
    say(f"{sentence} ({', '.join(filter(None, (f'{summary.seconds:.1f} s', summary.rates())))})")
    if summary.resumed:
        say(f"{summary.resumed:,} parts were there already")
    for reason, count in sorted(summary.bad.items()):
        say(f"bad: {count:,} x {reason}")
    for remark, count in sorted(summary.remarks.items()):
        say(f"noticed: {count:,} x {remark}")
    if summary.duplicate_uids:
        say(f"noticed: {summary.duplicate_uids:,} x uid that an earlier row has")
