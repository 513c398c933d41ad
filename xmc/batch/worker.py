"""Parts of a job made by one process: read, tokenise, encode, search, write, each stage a little ahead of the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from xmc.batch.options import Columns
from xmc.batch.output import Output, PartFile
from xmc.batch.places import InputFile
from xmc.batch.plan import Part, Plan
from xmc.batch.rows import check_rows
from xmc.batch.stages import Stages
from xmc.batch.summary import Done
from xmc.batch.tables import Table, open_table
from xmc.batch.windows import windows
from xmc.batch.work import Chunk, Work
from xmc.errors import DataError

__all__ = ["Worker"]

WINDOW = 8_192
"""Rows that go through the stages together; encoders sort them by length."""
WINDOW_BYTES = 16 << 20


@dataclass(frozen=True)
class _Step:
    """A window of a part. first: the row of the file that it begins with; last: whether it ends its part."""

    part: Part
    first: int
    batch: pa.RecordBatch
    last: bool


@dataclass(frozen=True)
class _Moving:
    """A window between two stages."""

    step: _Step
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
        # On a processor the stages that compute take turns in one thread; on a GPU each has its own.
        own = self._work.device.type == "cuda"
        current: list[PartFile] = []
        with Stages() as stages:
            self.busy = stages.busy
            try:
                moving: Iterator[_Moving] = stages.apply(
                    "check", self._checked, stages.read("read", self._steps(parts), "read"), "read"
                )
                for name, work in self._work.stages:
                    moving = stages.apply(name, _forward(work), moving, name if own else "compute")
                writing = _Writing(self._output, self._plan, self._policy, self._work.schema, current)
                for rows, done in stages.apply("write", writing, moving, "write"):
                    advance(rows)
                    if done is not None:
                        yield done
            finally:
                for part in current:
                    part.abandon()

    def _steps(self, parts: Iterable[Part]) -> Iterator[_Step]:
        columns = self._plan.columns
        opened: tuple[InputFile, Table] | None = None
        for part in parts:
            if opened is None or opened[0] != part.file:
                strict = self._policy == "error"
                opened = part.file, open_table(part.file, (columns.uid, columns.payload), strict)
            table, row = opened[1], part.start
            if not part.rows:
                yield _Step(part, row, _empty(table.schema, columns), last=True)
            stop = part.start + part.rows
            for batch in windows(table.batches(row, stop), columns.payload, WINDOW, WINDOW_BYTES):
                yield _Step(part, row, batch, last=row + len(batch) == stop)
                row += len(batch)

    def _checked(self, step: _Step) -> _Moving:
        rows = check_rows(step.batch, self._plan.columns, self._work.dimension)
        if self._policy == "error" and rows.bad:
            place = int((~rows.good).argmax())
            reasons = ", ".join(f"{count:,} x {reason}" for reason, count in rows.bad.items())
            raise DataError(
                f"{step.part.file.address}, row {step.first + place + 1:,} (uid {rows.uids[place].as_py()!r}) cannot be used; "
                f"among the {len(rows.good):,} rows from {step.first + 1:,} on: {reasons}. Mend it, or let --on-bad-row be "
                f"null (such rows get no labels) or drop."
            )
        return _Moving(step, Chunk(rows, None))


class _Writing:
    """Called with every window in turn: gives the rows that it had, and what there is to say of a part that it ended.

    current: the part that is being written, to be abandoned should it remain.
    """

    def __init__(self, output: Output, plan: Plan, policy: str, schema: pa.Schema, current: list[PartFile]) -> None:
        self._output, self._plan, self._policy, self._schema = output, plan, policy, schema
        self._current = current
        self._written = self._null = 0
        self._bad: Counter[str] = Counter()
        self._remarks: Counter[str] = Counter()

    def __call__(self, moving: _Moving) -> tuple[int, Done | None]:
        step, rows = moving.step, moving.chunk.rows
        if not self._current:
            self._current.append(PartFile(self._output, step.part, self._schema))
            self._written = self._null = 0
            self._bad, self._remarks = Counter(), Counter()
        batch = moving.chunk.value
        if self._policy == "drop":
            batch = batch.filter(pa.array(rows.good))
        else:
            self._null += int((~rows.good).sum())
        self._current[0].write(batch)
        self._written += len(batch)
        self._bad.update(rows.bad)
        self._remarks.update(rows.remarks)
        return len(rows.good), self._finished(step.part) if step.last else None

    def _finished(self, part: Part) -> Done:
        done = Done(part.number, part.rows, self._written, self._null, dict(self._bad), dict(self._remarks))
        self._current[0].finish(self._plan, self._policy, done)
        self._current.clear()
        return done


def _forward(work: Callable[[Chunk], Chunk]) -> Callable[[_Moving], _Moving]:
    return lambda moving: _Moving(moving.step, work(moving.chunk))


def _empty(schema: pa.Schema, columns: Columns) -> pa.RecordBatch:
    fields = [schema.field(name) for name in dict.fromkeys((columns.uid, columns.payload))]
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in fields], schema=pa.schema(fields))
