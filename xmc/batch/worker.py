"""Parts of a job made by one process: read, tokenise, encode, search, write, each step a little ahead of the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from xmc.batch.form import KEPT
from xmc.batch.options import PAYLOAD, UID
from xmc.batch.output import Output, PartFile
from xmc.batch.pipeline import Pipeline
from xmc.batch.plan import Part, Plan
from xmc.batch.rows import check_rows
from xmc.batch.summary import Done
from xmc.batch.windows import windows
from xmc.batch.work import Chunk, Work
from xmc.data.files import LINE, MESSAGE, RecordFile, open_file
from xmc.data.files.addresses import InputFile
from xmc.data.files.undecodable import with_encoding
from xmc.errors import DataError

__all__ = ["Worker"]

WINDOW = 8_192
"""Number of rows that go through the steps together; encoders sort them by length."""
WINDOW_BYTES = 16 << 20


@dataclass(frozen=True)
class _Window:
    """Rows of a part that go through the steps together.

    first: the row of the file that it begins with. unit: what its places in the file are. last: whether it ends its part.
    """

    part: Part
    first: int
    unit: str
    batch: pa.RecordBatch
    last: bool


@dataclass(frozen=True)
class _Moving:
    """A window between two steps."""

    window: _Window
    chunk: Chunk


class Worker:
    """What makes parts. policy: what is done to a bad row."""

    def __init__(self, work: Work, plan: Plan, output: Output, policy: str) -> None:
        self._work, self._plan, self._output, self._policy = work, plan, output, policy
        self.busy: Counter[str] = Counter()

    def make(self, parts: Iterable[Part], advance: Callable[[int], None]) -> Iterator[Done]:
        """Make parts one after another; advance is told of rows that are written.

        Raises DataError for input that cannot be read, and for a bad row where these are refused.
        """
        writing = _Writing(self._output, self._plan, self._policy, self._work.schema)
        try:
            with Pipeline() as pipeline:
                self.busy = pipeline.busy
                read = pipeline.read("read", self._windows(parts), "read")
                moving: Iterator[_Moving] = pipeline.apply([("check", self._checked)], read, "read")
                for thread, steps in self._threads():
                    moving = pipeline.apply(steps, moving, thread)
                for rows, done in pipeline.apply([("write", writing)], moving, "write"):
                    advance(rows)
                    if done is not None:
                        yield done
        finally:  # when no thread writes any more
            writing.abandon()

    def _threads(self) -> list[tuple[str, list[tuple[str, Callable[[_Moving], _Moving]]]]]:
        """The steps by thread: on a processor those that compute take turns in one; on a GPU each has its own."""
        steps = [(name, _forward(work)) for name, work in self._work.steps]
        return [(step[0], [step]) for step in steps] if self._work.device.type == "cuda" else [("compute", steps)]

    def _windows(self, parts: Iterable[Part]) -> Iterator[_Window]:
        wanted, form = self._plan.wanted, self._plan.columns.form
        kept = [column.field for column in wanted[len(self._plan.columns.wanted) :]]
        opened: tuple[InputFile, RecordFile] | None = None
        for part in parts:
            if opened is None or opened[0] != part.file:
                opened = part.file, open_file(part.file, wanted, form)
            file, row = opened[1], part.start
            if not part.rows:
                yield _Window(part, row, file.unit, pa.RecordBatch.from_pylist([], schema=file.schema), last=True)
            stop = part.start + part.rows
            for batch in windows(file.batches(row, stop), [PAYLOAD, *kept], WINDOW, WINDOW_BYTES):
                if not file.has(wanted[0].name):
                    batch = batch.set_column(
                        batch.schema.get_field_index(UID), UID, self._numbered(part.file, row, len(batch))
                    )
                yield _Window(part, row, file.unit, batch, last=row + len(batch) == stop)
                row += len(batch)

    def _numbered(self, file: InputFile, row: int, count: int) -> pa.Array:
        """Uids of rows of a file that has none."""
        before = f"{file.name}:" if self._plan.files > 1 else ""
        return pa.array([f"{before}{number}" for number in range(row, row + count)])

    def _checked(self, window: _Window) -> _Moving:
        rows = check_rows(window.batch, self._plan.columns, self._work.dimension)
        if self._policy == "error" and rows.bad:
            first = int((~rows.good).argmax())
            reasons = ", ".join(f"{count:,} x {reason}" for reason, count in rows.bad.items())
            place, message = (window.batch.column(name)[first].as_py() for name in (LINE, MESSAGE))
            why = f": {message} Among" if message else "; among"
            raise DataError(
                f"{window.part.file.address}, {window.unit} {place:,} (uid {rows.uids[first].as_py()!r}) cannot be used{why} "
                f"the {len(rows.good):,} rows from {window.first + 1:,} on: {reasons}. Mend it, or let --on-bad-row be null "
                f"(such rows get no labels) or drop.",
                again=with_encoding(message),
            )
        return _Moving(window, Chunk(rows, None))


class _Writing:
    """Called with every window in turn: gives the rows that it had, and what there is to say of a part that it ended."""

    def __init__(self, output: Output, plan: Plan, policy: str, schema: pa.Schema) -> None:
        self._output, self._plan, self._policy = output, plan, policy
        self._schema = pa.schema([schema.field(0), *plan.kept, *list(schema)[1:]])
        self._file: PartFile | None = None
        self._written = self._null = self._tokens = 0
        self._bad: Counter[str] = Counter()
        self._remarks: Counter[str] = Counter()

    def __call__(self, moving: _Moving) -> tuple[int, Done | None]:
        window, rows = moving.window, moving.chunk.rows
        if self._file is None:
            self._file = PartFile(self._output, window.part, self._schema, self._plan.form)
            self._written = self._null = self._tokens = 0
            self._bad, self._remarks = Counter(), Counter()
        batch = self._with_kept(moving.chunk.value, window.batch)
        if self._policy == "drop":
            batch = batch.filter(pa.array(rows.good))
        else:
            self._null += int((~rows.good).sum())
        self._file.write(batch)
        self._written += len(batch)
        self._tokens += moving.chunk.tokens
        self._bad.update(rows.bad)
        self._remarks.update(rows.remarks)
        return len(rows.good), self._finished(self._file, window.part) if window.last else None

    def abandon(self) -> None:
        """Leave nothing of a part that is not whole."""
        if self._file is not None:
            self._file.abandon()

    def _with_kept(self, result: pa.RecordBatch, given: pa.RecordBatch) -> pa.RecordBatch:
        """The result, with the columns of the input that are kept behind the uid."""
        kept = [given.column(KEPT + field.name).cast(field.type) for field in self._plan.kept]
        return pa.record_batch([result.column(0), *kept, *result.columns[1:]], schema=self._schema)

    def _finished(self, file: PartFile, part: Part) -> Done:
        bad, remarks = dict(self._bad), dict(self._remarks)
        done = Done(part.number, part.rows, self._written, self._null, bad, remarks, self._tokens)
        file.finish(self._plan, self._policy, done)
        self._file = None
        return done


def _forward(work: Callable[[Chunk], Chunk]) -> Callable[[_Moving], _Moving]:
    return lambda moving: _Moving(moving.window, work(moving.chunk))
