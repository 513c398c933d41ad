"""Changes of a run that is served: on disk before they are confirmed, seen by every worker, at times written into the run."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from xmc.errors import InputError, StoreError
from xmc.search.changes import Change
from xmc.search.entry_rate import Scaling
from xmc.search.journal_mark import JournalMark
from xmc.search.label_edits import LabelEdits
from xmc.search.retriever import Retriever
from xmc.search.run_directory import RunDirectory
from xmc.serve.journal import Entry, Journal
from xmc.serve.journalled import change_of, content_of_edits, content_of_remembered, source_of_memory
from xmc.storage.locks import alone

__all__ = ["COMPACTED_AT", "LabelChanges", "journal_of"]

COMPACTED_AT = 1 << 25
"""Bytes of a journal from which on it is written into the run: about 16,000 labels of 256 dimensions."""
KNOWN_VERSIONS = 10_000
"""Versions of the labels whose number of the last change is remembered."""
logger = logging.getLogger("xmc.serve")


def journal_of(run: str | Path) -> Path:
    """The journal of a run: beside it, as RUN.journal."""
    run = Path(run).absolute()
    return run.parent / f"{run.name}.journal"


class LabelChanges:
    """The changes of a run's labels and remembered queries while it is served, by one of any number of processes.

    A change is worked out for the labels as they are, appended to the journal, synced to disk, then made and confirmed. Any
    number of threads may call this at once; searches wait for no encoding.

    replayed: number of changes that were in the journal and not in the run.
    """

    def __init__(self, directory: str | Path, retriever: Retriever) -> None:
        """Make all changes of the journal that the run that `retriever` was loaded from does not hold.

        Those that do not fit the run, because it was replaced by another one, are made as far as they make sense, and logged.
        Raises StoreError for a damaged journal, and for a retriever that is not of a run directory.
        """
        if retriever.reference is None:
            raise StoreError("The retriever was not loaded from a run; save it first: retriever.save(DIRECTORY).")
        self.directory, self.retriever = Path(directory), retriever
        retriever.keep_no_changes()  # the journal does
        self._journal = Journal(journal_of(directory))
        self._run = retriever.reference.fingerprint
        self._applying, self._writing, self._compacting = threading.RLock(), threading.Lock(), threading.Lock()
        self._version = 0 if retriever.mark is None else retriever.mark.number
        self._in_run, self._in_run_size = self._version, 0
        self._numbers = [(retriever.labels.number, self._version)]
        self.replayed = self._begin()
        self._fresh = True

    @property
    def version(self) -> int:
        """Number of the last change that is made here; it goes on after a restart, and when the run is written."""
        return self._version

    def version_of(self, labels: int) -> int:
        """Number of the last change of labels, by the number that an Answer has of them."""
        place = bisect_right(self._numbers, labels, key=lambda known: known[0])
        return self._numbers[max(0, place - 1)][1]

    def catch_up(self) -> int:
        """Make the changes that other processes confirmed; returns `version`. Costs one look at a file where there are none.

        StoreError where the journal was damaged, and where the run must be opened anew.
        """
        if self._version < self._journal.last or not self._journal.unchanged():
            with self._applying:
                self._make()
        return self._version

    def apply(self, edits: LabelEdits) -> tuple[int, tuple[Scaling, ...]]:
        """Change labels: durable when this returns, with the version that has the change, and what labels were scaled by.

        Raises ConflictError and InputError as `Retriever.change_labels`, StoreError where the change cannot be written; then
        nothing is changed.
        """
        with self._alone() as append:
            prepared = self.retriever.prepare_edits(edits)
            content = content_of_edits(edits, prepared, self.retriever.source)
            return append(content, prepared.change), prepared.scalings

    def remember(self, texts: Sequence[str], labels: Sequence[Sequence[str]]) -> int:
        """Remember judged queries, as `Retriever.remember`: durable when this returns, with the version that has them.

        Errors as there, and StoreError where the change cannot be written.
        """
        with self._alone() as append:
            remembered = self.retriever.prepare_remembered(texts, labels)
            return append(content_of_remembered(remembered, source_of_memory(self.retriever)), remembered)

    @property
    def wants_compaction(self) -> bool:
        """Whether changes are to be written into the run: many, or such as an ended process left there."""
        left = self._fresh and self.replayed > 0
        return self._in_run < self._version and (left or self._journal.size - self._in_run_size >= COMPACTED_AT)

    def holds(self, run: str) -> bool:
        """Whether a run directory with this fingerprint is the run as it was loaded, or as it was compacted since."""
        with self._applying:
            if run == self._run:
                return True
            with suppress(StoreError):
                self.catch_up()
            header = self._journal.header
            if header is None or header.run != run or header.compacted > self._version:
                return False
            self._is_in_run(run, JournalMark(header.journal, header.compacted))
            return True

    def compact(self) -> bool:
        """Write the run with all changes so far, and leave those out of the journal that nobody needs; False for nothing to do.

        Searches and changes go on meanwhile. False too where another process writes the run, or has written it, or it is gone:
        all is left as it is, and changes that the run lacks stay in the journal. StoreError where the run cannot be written.
        """
        with self._compacting, self._holding() as held:
            return held and self._compact()

    def _compact(self) -> bool:
        with self._applying:
            self.catch_up()
            with suppress(StoreError):
                self.holds(RunDirectory(self.directory).fingerprint)
            header, loaded = self._journal.header, self._run
            if header is None or self._version == self._in_run:
                return False
            mark = JournalMark(header.journal, self._version)
            run = replace(self.retriever.snapshot(), mark=mark)
            self._fresh, self._in_run_size = False, self._journal.size  # where it fails, it is not tried all the time
        directory = RunDirectory(self.directory)
        try:
            directory.write(run, overwrite=True, replacing=loaded)
        except StoreError:
            if RunDirectory(self.directory).fingerprint == loaded:
                raise
            return False
        written = RunDirectory(self.directory).fingerprint
        with self._writing, self._journal.writing(self._version, self._in_run, self._run) as writer, self._applying:
            self._make()
            writer.cut(mark.number, written)
            self._is_in_run(written, mark)
        logger.info("%s holds the changes up to %d", self.directory, mark.number)
        return True

    @contextmanager
    def _holding(self) -> Iterator[bool]:
        """Whether there is a run, and no other process writes it while the block runs."""
        with ExitStack() as held:
            try:
                held.enter_context(alone(self.directory, wait=False))
            except OSError:
                yield False
            else:
                yield self.directory.is_dir()

    def close(self) -> None:
        """Close the journal."""
        with self._applying:
            self._journal.close()

    def _begin(self) -> int:
        self._journal.follow()
        header, mark = self._journal.header, self.retriever.mark
        if header is None:
            return 0
        if mark is None or mark.journal != header.journal:
            same = header.run == self._run
            self._version = max(header.after, header.compacted if same else 0)
            if self._journal.pending and not same:
                logger.warning(
                    "%s is another run than the changes in %s were made for; they are made as far as they make sense",
                    self.directory,
                    self._journal.file,
                )
        elif mark.number < header.after:
            logger.warning(
                "%s was saved by somebody who had read it before the change %d; changes from there to %d are neither in it nor "
                "in the journal any more",
                self.directory,
                mark.number + 1,
                header.after,
            )
            self._version = header.after
        self._in_run = self._version
        self._numbers = [(self.retriever.labels.number, self._version)]
        self._make()
        return self._version - self._in_run

    def _make(self) -> None:
        """Make the changes of the journal that are new."""
        self._journal.follow()
        while self._journal.pending:
            entry = self._journal.pending[0]
            if entry.number > self._version:
                self._require_next(entry.number)
                change, said = self._change(entry)
                for words in said:
                    logger.warning("the change %d: %s", entry.number, words)
                self._apply(change, entry.number)
            self._journal.pending.popleft()
        if self._journal.header is not None:
            self._require_next(self._journal.header.after + 1)

    def _is_in_run(self, run: str, mark: JournalMark) -> None:
        """The run of this fingerprint holds the changes up to the mark."""
        self._run, self.retriever.mark, self._in_run = run, mark, mark.number
        self._fresh, self._in_run_size = False, self._journal.size

    def _require_next(self, number: int) -> None:
        """StoreError where changes before one of this number were cut off: the run was compacted twice meanwhile."""
        if number > self._version + 1:
            raise StoreError(
                f"The changes from {self._version + 1} to {number - 1} are not in {self._journal.file} any more, but in the run"
                f" {self.directory}, which is to be opened anew."
            )

    def _change(self, entry: Entry) -> tuple[Change | None, list[str]]:
        try:
            return change_of(entry.content, self.retriever)
        except InputError as error:
            return None, [f"it does not fit the run, and is passed over: {error}"]
        except (KeyError, TypeError) as error:
            raise StoreError(
                f"The change {entry.number} of {self._journal.file} is of a form that this xmc does not know: {error!r}."
            ) from error

    def _apply(self, change: Change | None, number: int) -> None:
        if change is not None:
            self.retriever.apply(change)
        self._version = number
        self._numbers = [*self._numbers[-KNOWN_VERSIONS:], (self.retriever.labels.number, number)]

    @contextmanager
    def _alone(self) -> Iterator[Callable[[Mapping[str, Any], Change], int]]:
        """While no other thread or process changes labels: what appends a change, and then makes it."""
        with self._writing, self._journal.writing(self._version, self._in_run, self._run) as writer:
            with self._applying:
                self._make()
                if self._journal.last < self._version:  # an older copy of it was put back
                    writer.renew(self._version)

            def append(content: Mapping[str, Any], change: Change) -> int:
                with self._applying:
                    entry = writer.append(content)
                    self._apply(change, entry.number)
                return entry.number

            yield append
