"""A job from beginning to end: plan, hold the folder, make what is missing, count, and say that it is whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Protocol

from xmc.batch.duplicates import count_duplicates
from xmc.batch.form import OutputForm
from xmc.batch.options import JobOptions
from xmc.batch.output import Output
from xmc.batch.plan import Part, Plan, make_plan
from xmc.batch.summary import Done, Summary
from xmc.batch.work import WorkSpecification, load_work
from xmc.batch.worker import Worker
from xmc.progress import progress

__all__ = ["run_job"]

logger = logging.getLogger("xmc.batch")


class JobEngine(Protocol):
    """What makes parts of a job: a call gives each part as it is finished, and tells `advance` the number of rows written."""

    def __call__(
        self, parts: list[Part], summary: Summary, advance: Callable[[int], None]
    ) -> Generator[Done, None, None]:
        """Make the parts."""


def run_job(
    work: WorkSpecification, source: str, destination: str, options: JobOptions, form: OutputForm | None = None
) -> Summary:
    """Do some work on all rows of the input; see xmc.batch.predict.predict_files for input, output and errors."""
    started = time.perf_counter()
    asked, strict, form = work.describe(), options.on_bad_row == "error", form or OutputForm()
    with progress(f"counting the rows of {source}"):
        plan = make_plan(source, options.columns, options.rows_per_part, asked, strict, form, work.names)
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
            with progress(str(asked["work"]), plan.rows, done=summary.rows, unit="rows", keep=True) as line:

                def advance(rows: int) -> None:
                    line.advance(rows, _note(line.speed, summary.slowest))

                with closing(engine(missing, summary, advance)) as made:
                    for done in made:
                        summary.add(done)
                        finished[done.part] = done
        with progress("looking for repeated uids"):
            summary.duplicate_uids = count_duplicates(lambda: output.uids(plan), summary.predicted + summary.null)
        with progress("finishing the output"):
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
        self._worker = Worker(load_work(work, plan.work["run"]), plan, output, options.on_bad_row)

    def __call__(
        self, parts: list[Part], summary: Summary, advance: Callable[[int], None]
    ) -> Generator[Done, None, None]:
        def told(rows: int) -> None:
            summary.busy = self._worker.busy
            advance(rows)

        yield from self._worker.make(parts, told)


def _note(speed: float | None, slowest: str) -> str:
    """Rows a second, and the stage that takes longest, as far as they are known."""
    facts = ("" if speed is None else f"{speed:,.0f} rows/s", slowest and f"slowest: {slowest}")
    return ", ".join(filter(None, facts))
