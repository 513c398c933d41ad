"""A job from beginning to end: plan, hold the folder, make what is missing, count, and say that it is whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from xmc.batch.duplicates import count_duplicates
from xmc.batch.options import JobOptions
from xmc.batch.output import Output
from xmc.batch.plan import Part, Plan, make_plan
from xmc.batch.summary import Done, Summary
from xmc.batch.work import WorkSpecification
from xmc.batch.worker import Worker
from xmc.progress import progress_bar

__all__ = ["run_job"]

logger = logging.getLogger("xmc.batch")


class JobEngine(Protocol):
    """What makes parts of a job: a call gives each part as it is finished, and tells `advance` the number of rows written."""

    def __call__(
        self, parts: list[Part], summary: Summary, advance: Callable[[int], None]
    ) -> Generator[Done, None, None]:
        """Make the parts."""


def run_job(work: WorkSpecification, source: str, destination: str, options: JobOptions) -> Summary:
    """Do some work on all rows of the input; see xmc.batch.predict.predict_files for input, output and errors."""
    started = time.perf_counter()
    plan = make_plan(source, options.columns, options.rows_per_part, work.describe(), options.on_bad_row == "error")
    output = Output(destination)
    summary = Summary()
    with output.held():
        finished = output.begin(plan, options.on_bad_row, options.resume)
        for done in finished.values():
            summary.add(done)
        summary.resumed = len(finished)
        missing = [part for part in plan.parts if part.number not in finished]
        logger.info("%s rows in %s parts; %s parts are there already", f"{plan.rows:,}", len(plan.parts), len(finished))
        if missing:
            engine = _engine(work, plan, output, options)
            with _Bar(plan.rows, summary) as bar, closing(engine(missing, summary, bar.advance)) as made:
                for done in made:
                    summary.add(done)
                    finished[done.part] = done
        summary.duplicate_uids = count_duplicates(lambda: output.uids(plan), summary.predicted + summary.null)
        output.finish(plan, summary, finished)
    summary.seconds = time.perf_counter() - started
    if missing:
        busy = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in summary.busy.items())
        logger.info("%s rows in %.1f s; busy: %s", f"{summary.rows:,}", summary.seconds, busy)
    return summary


def _engine(work: WorkSpecification, plan: Plan, output: Output, options: JobOptions) -> JobEngine:
    if options.engine == "ray":
        from xmc.batch.ray_engine import RayEngine

        return RayEngine(work, plan, output.address, options)
    return _Local(work, plan, output, options)


class _Local:
    def __init__(self, work: WorkSpecification, plan: Plan, output: Output, options: JobOptions) -> None:
        self._worker = Worker(work.load(), plan, output, options.on_bad_row)

    def __call__(
        self, parts: list[Part], summary: Summary, advance: Callable[[int], None]
    ) -> Generator[Done, None, None]:
        def told(rows: int) -> None:
            summary.busy = self._worker.busy
            advance(rows)

        yield from self._worker.make(parts, told)


class _Bar:
    """A context: rows done, rows a second, time left, and the stage that takes longest; silent off a terminal."""

    def __init__(self, rows: int, summary: Summary) -> None:
        self._summary = summary
        self._progress = progress_bar(
            TextColumn("rows"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]} rows/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[slowest]}"),
        )
        self._task = self._progress.add_task("", total=rows, completed=summary.rows, speed="-", slowest="")

    def advance(self, rows: int) -> None:
        """Count rows that were written."""
        speed = self._progress.tasks[0].speed
        slowest = self._summary.slowest
        self._progress.update(
            self._task,
            advance=rows,
            speed="-" if speed is None else f"{speed:,.0f}",
            slowest=f"slowest: {slowest}" if slowest else "",
        )

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
