"""`write_report`: runs measured, compared, and put on a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from xmc.data.dataset import Dataset, opened
from xmc.errors import InputError, StoreError, require_package
from xmc.indexes.checks import require_count
from xmc.progress import progress
from xmc.report.major import plain_mistakes
from xmc.report.run import PLACES, ReportedRun
from xmc.report.task import Task
from xmc.search.run_directory import RunDirectory
from xmc.storage.files import atomic_file

__all__ = ["write_report"]


@progress("measuring runs for the report")
def write_report(
    runs: Sequence[str | Path],
    dataset: Dataset | str | Path,
    out: str | Path,
    split: str = "test",
    *,
    k: int = 100,
    queries: int = 500,
    major_mistakes: str | Path | None = None,
    device: str | Sequence[str] = "auto",
) -> Path:
    """Write one HTML page about runs, which are compared with the first one; returns its path.

    runs: directories. dataset: what they are measured on, or its name or directory; its training split gives label frequencies
        and propensities.
    k: labels that are searched for each query, at least 10. queries: number of queries on the page, half of them the worst, the
        rest a random sample.
    major_mistakes: Parquet file to write too, with the first predictions of the first run that are sorted as plainly wrong, on
        which `xmc evaluate --mistakes` measures later runs.
    device: where runs are opened, as of Retriever.load.

    The page needs nothing else: no network, no other file. The same runs and data give the same page.

    Raises DependencyError without plotly or Jinja2, InputError for no run, one given twice, or k or queries that are too few,
    StoreError where there is no run or `out` cannot be written, DataError where there is no such split, or a run shares no
    label with the data set.
    """
    for package in ("plotly", "jinja2"):
        require_package(package, "A report has plots and is made from a template", "plotly jinja2")
    from xmc.report.page import render

    directories = [Path(run) for run in runs]
    names = _names(directories)
    if require_count(k, "k") < PLACES:
        raise InputError(f"k must be at least {PLACES}, the places that are judged, but is {k}.")
    if require_count(queries, "queries") < 1:
        raise InputError(f"queries must be at least 1, but is {queries}.")
    out = Path(out)
    if out.is_dir():
        raise StoreError(f"{out} is a directory; name a file such as {out / 'report.html'}.")
    for directory in directories:  # before the work
        RunDirectory(directory).require()
    task = Task.from_split(opened(dataset), split)
    measured = [ReportedRun.measure(*named, task, k, device) for named in zip(names, directories, strict=True)]
    page = render(measured, task, k, queries)
    if major_mistakes is not None:
        plain_mistakes(measured[0], task).save(major_mistakes)
    try:
        with atomic_file(out) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error}.") from error
    return out


def _names(directories: Sequence[Path]) -> list[str]:
    """The last parts of the directories' paths, as few as tell them apart; InputError for none, or one given twice."""
    if not directories:
        raise InputError("A report needs at least one run.")
    resolved = [directory.resolve() for directory in directories]
    if len(set(resolved)) < len(resolved):
        twice, _ = Counter(resolved).most_common(1)[0]
        raise InputError(f"The run {twice} is given more than once; give each run one time.")
    parts, most = 1, max(len(path.parts) for path in resolved)
    while True:
        names = ["/".join(path.parts[-parts:]) for path in resolved]
        if len(set(names)) == len(names) or parts == most:
            return names
        parts += 1
