"""Two processes that save one run: what each changed since both read it goes together, where it does not touch.

A run is made of parts. A part that one of the two changed is taken from that one. Labels are both's: changes made here are made
again on the labels that are there. What both changed is refused, and so is everything where the model is another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from xmc.arrays import Rows
from xmc.errors import ConflictError, InputError
from xmc.indexes.versions import IndexVersion
from xmc.search.changes import Added, Change, ColumnsSet, Compacted, Remembered, Removed, Several, Updated
from xmc.search.labels import LabelVersion
from xmc.search.run import Run
from xmc.storage.run_layout import part_of

__all__ = ["merged"]

_TAKEN_WHOLE = {
    "configuration": "config",
    "metrics": "metrics",
    "tuning queries": "tuning_queries",
    "calibration": "calibration",
    "stages": "stages",
}
"""Parts that are one's or the other's, and their fields in Run."""


def merged(
    mine: Run,
    changed_here: Sequence[str],
    changes: Sequence[Change] | None,
    base: LabelVersion,
    files: Mapping[str, str],
    there: Run,
) -> Run:
    """The run that has the changes of both: those of `mine`, and those of `there`, since both were read.

    changed_here: names of the parts that are others in `mine`. changes: of the labels of `mine`, in their order; None
    where they are not known. base, files: the labels as they were read, and the SHA-256 of the run's files then.

    Raises ConflictError, which names what both changed, in a sentence.
    """
    changed_there = _changed(files, there.files)
    for changed, where in ((changed_here, "here"), (changed_there, "there")):
        if "model" in changed:
            raise ConflictError(f"the model was changed {where}.")
    taken: dict[str, Any] = {}
    for part, name in _TAKEN_WHOLE.items():
        own, other = getattr(mine, name), getattr(there, name)
        if part in changed_here and part in changed_there and not _equal(own, other):
            raise ConflictError(f"what was changed here and there is: {part}.")
        taken[name] = own if part in changed_here else other
    labels = there.labels
    if "labels and index" in changed_here:
        if changed_there & {"labels", "memory"}:
            labels = _labels(mine, "stages" in changed_here, changes, base, there, changed_there)
        else:
            labels = mine.labels
    return replace(there, model=mine.model, labels=labels, **taken)


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """The parts whose files are others, given the SHA-256 of all files by name."""
    differ = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    return {part_of(name) for name in differ}


def _equal(first: Any, second: Any) -> bool:
    try:
        return bool(first == second)
    except ValueError:  # arrays
        return False


def _labels(
    mine: Run,
    stages_here: bool,
    changes: Sequence[Change] | None,
    base: LabelVersion,
    there: Run,
    changed_there: set[str],
) -> LabelVersion:
    """The labels that are there with the changes made here, and the index and the memory that were made here."""
    if changes is None:
        raise ConflictError("more labels were changed here than are kept to be changed again, and others there.")
    steps = list(_flat(changes))
    anew = mine.labels.memory is not base.memory and stages_here
    if anew and "memory" in changed_there:
        raise ConflictError("the remembered queries were changed here and there.")
    if anew and there.labels.next_id != base.next_id and any(isinstance(step, Added) for step in steps):
        raise ConflictError("labels were added there, and here together with a memory of queries.")
    if "stages" in changed_there and any(isinstance(step, Remembered) for step in steps):
        raise ConflictError("queries were remembered here, and the stages of searches changed there.")
    _refuse_touched(steps, base, there.labels)
    labels = there.labels
    for step in steps:
        if anew and isinstance(step, Remembered):
            continue  # the memory that was made here has it
        try:
            labels = step(labels)
        except InputError as error:
            raise ConflictError(f"labels were changed there that were changed here: {error}") from error
        labels = Compacted()(labels) if labels.index.wants_compaction else labels
    own, known = mine.labels.index, base.index
    if own.design is not known.design or own.rescore != known.rescore:
        if _described(there.labels.index) != _described(known):
            raise ConflictError("the labels were indexed anew here and there.")
        labels = _searched_by(mine.labels, labels)
    return labels.remembering(mine.labels.memory) if anew else labels


def _flat(changes: Sequence[Change]) -> Iterator[Change]:
    for change in changes:
        if isinstance(change, Several):
            yield from _flat(change.changes)
        else:
            yield change


def _refuse_touched(steps: Sequence[Change], base: LabelVersion, there: LabelVersion) -> None:
    """ConflictError for a label that was there before, changed here, and that is another or gone there."""
    named = [list(step.uids) for step in steps if isinstance(step, (Removed, Updated, ColumnsSet))]
    uids = list(dict.fromkeys(uid for listed in named for uid in listed))
    before = base.index_rows(uids)
    uids = [uid for uid, row in zip(uids, before.tolist(), strict=True) if row >= 0]
    before, now = base.index_rows(uids), there.index_rows(uids)
    gone = np.flatnonzero(now < 0)
    if len(gone):
        raise ConflictError(f"the label {uids[gone[0]]!r} was changed here and removed there.")
    same = base.ids_at(before) == there.ids_at(now)
    same &= (base.index.blocks.take(before) == there.index.blocks.take(now)).all(axis=1)
    same &= np.array(
        [first == second for first, second in zip(_said(base, before), _said(there, now), strict=True)], bool
    )
    if not same.all():
        raise ConflictError(f"the label {uids[int(np.flatnonzero(~same)[0])]!r} was changed here and there.")


def _said(labels: LabelVersion, rows: Rows) -> list[str]:
    """What the columns say of some labels; a column that there is not is as one that is null."""
    records = labels.everything.take(pa.array(rows)).to_pylist()
    return [repr(sorted((name, value) for name, value in record.items() if value is not None)) for record in records]


def _described(index: IndexVersion) -> tuple[Any, ...]:
    return index.design.kind, index.design.settings(), index.rescore


def _searched_by(mine: LabelVersion, wanted: LabelVersion) -> LabelVersion:
    """The labels of `wanted`, by the index of `mine`: without its rows of other labels; those that it lacks come last."""
    rows = wanted.living
    own_rows = mine.index_rows(wanted.uids.to_pylist())
    vectors = wanted.index.blocks.take(rows)
    kept = np.flatnonzero(own_rows >= 0)
    kept = kept[(mine.index.blocks.take(own_rows[kept]) == vectors[kept]).all(axis=1)]
    own = own_rows[kept]
    order = np.argsort(own, kind="stable")
    kept, own = kept[order], own[order]
    new = np.setdiff1d(np.arange(len(rows)), kept)
    held = mine.index.remove(np.setdiff1d(mine.living, own)).compact()
    if len(new):
        held = held.append(vectors[new])
    return wanted.in_order(rows[np.concatenate([kept, new])], held)
