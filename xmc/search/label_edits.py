"""Labels that are added, updated and removed in one change, as records with the values of each label by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import pyarrow as pa

from xmc.data.sequences import in_order
from xmc.errors import ConflictError, InputError
from xmc.search.changes import Added, Change, ColumnsSet, Removed, Several, Updated, new_rows, updated_rows
from xmc.search.entry_rate import Scaling
from xmc.search.label_examples import LabelSources
from xmc.search.labels import LabelVersion
from xmc.search.new_labels import NewVectors, Scoring
from xmc.search.queries import strings_of_list

__all__ = ["LabelEdits", "LabelRecord", "PreparedEdits", "VectorsOf"]

LabelRecord: TypeAlias = Mapping[str, Any]
"""A label by name: `uid`, `text`, `examples` and `negatives`, lists of queries, and its columns under their names."""
VectorsOf: TypeAlias = Callable[[LabelVersion, LabelSources], NewVectors]
"""What labels, which join others or take their place, are searched by."""
SOURCES = ("text", "examples", "negatives")
"""Values that the vector of a label is made from."""
NAMED = ("uid", *SOURCES)
"""Values of a record that are no columns."""


@dataclass(frozen=True)
class PreparedEdits:
    """Edits as a change that fits the labels as they were, ready to apply.

    scalings: of the labels that were made anew and those that are new, see `Retriever.add_labels`. vectors: what they are
    searched by, with their uids.
    """

    change: Several
    scalings: tuple[Scaling, ...]
    vectors: tuple[tuple[Sequence[str], NewVectors], ...]


@dataclass(frozen=True)
class LabelEdits:
    """Labels to add and to update, and uids to remove; no uid is in it twice. See `Retriever.change_labels`."""

    add: tuple[LabelRecord, ...] = ()
    update: tuple[LabelRecord, ...] = ()
    remove: tuple[str, ...] = ()
    scoring: Scoring = field(default_factory=Scoring)

    @classmethod
    def read(
        cls,
        add: Sequence[LabelRecord] = (),
        update: Sequence[LabelRecord] = (),
        remove: Sequence[str] = (),
        scoring: Scoring | None = None,
    ) -> LabelEdits:
        """What a caller gave; a record to add without a uid has its text for one.

        Raises InputError, with the place, for what is no list of records, a record without a uid, one that adds a label with
        neither text nor examples or says nothing beside a uid, and a uid that is named twice.
        """
        added = tuple(_record(record, f"add[{place}]", True) for place, record in enumerate(_listed(add, "add")))
        updated = tuple(
            _record(record, f"update[{place}]", False) for place, record in enumerate(_listed(update, "update"))
        )
        removed = tuple(strings_of_list(remove, "remove", "uid"))
        edits = cls(added, updated, removed, scoring or Scoring())
        repeated = [uid for uid, count in Counter(edits.uids()).items() if count > 1]
        if repeated:
            raise InputError(f"The label {repeated[0]!r} is named twice in one change; name each label one time.")
        return edits

    def uids(self) -> Iterable[str]:
        """All that it names."""
        yield from (record["uid"] for record in (*self.add, *self.update))
        yield from self.remove

    def __len__(self) -> int:
        """Number of labels that it names."""
        return len(self.add) + len(self.update) + len(self.remove)

    def require_fit(self, labels: LabelVersion) -> None:
        """ConflictError for a label to add that is there already, and for one to update or remove that is not."""
        there = _there(labels, self)
        for record in self.add:
            if record["uid"] in there:
                raise ConflictError(
                    f"The label {record['uid']!r} is already there; update it, or give the new one another uid."
                )
        for what, uids in (("update", [record["uid"] for record in self.update]), ("remove", self.remove)):
            missing = [uid for uid in uids if uid not in there]
            if missing:
                raise ConflictError(f"There is no label {missing[0]!r} to {what} ({len(missing)} not found).")

    def fitted(self, labels: LabelVersion) -> tuple[LabelEdits, list[str]]:
        """The edits as far as they make sense for other labels than they were made for, and what differs, in words.

        A label to add that is there is updated; one to update or remove that is not there is left out.
        """
        there = _there(labels, self)
        known = [record for record in self.add if record["uid"] in there]
        gone = [record["uid"] for record in self.update if record["uid"] not in there]
        gone += [uid for uid in self.remove if uid not in there]
        said = [f"the label {record['uid']!r} was there and is updated" for record in known]
        said += [f"there is no label {uid!r} any more" for uid in gone]
        if not said:
            return self, []
        edits = replace(
            self,
            add=tuple(record for record in self.add if record["uid"] not in there),
            update=(*(record for record in self.update if record["uid"] in there), *known),
            remove=tuple(uid for uid in self.remove if uid in there),
        )
        return edits, said

    def prepare(self, labels: LabelVersion, dimension: int, vectors: VectorsOf) -> PreparedEdits:
        """The change that removes, then updates, then adds, each beside the labels that the one before left.

        dimension: of embeddings. Raises ConflictError as `require_fit`, and InputError for columns and examples that do not
        fit, before `vectors` is called for the labels at fault.
        """
        self.require_fit(labels)
        made: list[tuple[Sequence[str], NewVectors]] = []
        changes: list[Change] = []

        def make(given: LabelSources) -> NewVectors:
            made.append((given.uids, vectors(version, given)))
            return made[-1][1]

        def then(change: Change) -> LabelVersion:
            changes.append(change)
            return change(version)

        version = labels
        _refuse_misfits(self, version)
        if self.remove:
            version = then(Removed(self.remove))
        anew = [record for record in self.update if _names_source(record)]
        if anew:
            given = _sources(anew, _texts_kept(version, anew), dimension)
            updated_rows(version, given.uids, given.texts)
            new = make(given)
            version = then(Updated(given.uids, given.texts, new.embeddings, new.origin))
        for change in _columns_set(self.update, version):
            version = then(change)
        if self.add:
            given = _sources(self.add, [record.get("text") for record in self.add], dimension)
            columns = _columns_of(self.add, version)
            new_rows(version, given.uids, given.texts, columns)
            new = make(given)
            version = then(Added(given.uids, given.texts, new.embeddings, columns, new.origin))
        scalings = tuple(scaling for _, new in made for scaling in new.scalings)
        return PreparedEdits(Several(tuple(changes)), scalings, tuple(made))


def _there(labels: LabelVersion, edits: LabelEdits) -> set[str]:
    """Which labels that edits name are there."""
    uids = list(edits.uids())
    return {uid for uid, row in zip(uids, labels.index_rows(uids).tolist(), strict=True) if row >= 0}


def _listed(records: Any, name: str) -> list[Any]:
    if isinstance(records, Mapping):
        raise InputError(f"{name} must be a list of records; put a single one into a list.")
    return in_order(records, f"{name} must be a list of records, each a dictionary with a uid")


def _record(given: Any, place: str, new: bool) -> LabelRecord:
    """A record with a uid that says something."""
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise InputError(
            f'{place} must be a dictionary such as {{"uid": "n1", "text": "a boat"}}, but is {given!r:.100}.'
        )
    record = dict(given)
    if new and record.get("uid") is None and isinstance(record.get("text"), str):
        record["uid"] = record["text"]
    if record.get("uid") is None:
        raise InputError(f"{place} has no uid; give it one.")
    for name in ("uid", "text"):
        if record.get(name) is not None:
            strings_of_list([record[name]], f"The {name} of {place}", name)
    if record["uid"] == "":
        raise InputError(f"The uid of {place} is empty; give it another one.")
    if new and not (record.get("text") or "").strip() and not _count(record.get("examples")):
        raise InputError(f"The label {record['uid']!r} has neither a text nor an example; give it one of them.")
    if len(record) == 1:
        raise InputError(f"The label {record['uid']!r} is to be updated, but {place} says nothing beside its uid.")
    return record


def _names_source(record: LabelRecord) -> bool:
    return any(_count(record.get(name)) for name in SOURCES)


def _count(values: Any) -> int:
    """Number of examples, or of characters; what has no length is refused where it is read."""
    return 0 if values is None else len(values) if hasattr(values, "__len__") else 1


def _texts_kept(labels: LabelVersion, records: Sequence[LabelRecord]) -> list[str]:
    """The text of each label as its record has it, or as it is."""
    kept = labels.texts_of(labels.known_rows([record["uid"] for record in records]))
    return [record.get("text") or text for record, text in zip(records, kept, strict=True)]


def _sources(records: Sequence[LabelRecord], texts: Sequence[str | None], dimension: int) -> LabelSources:
    lists = {name: [record.get(name) for record in records] for name in ("examples", "negatives")}
    examples, negatives = (values if any(map(_count, values)) else None for values in lists.values())
    return LabelSources.read(texts, [record["uid"] for record in records], examples, negatives, dimension)


def _columns_of(records: Sequence[LabelRecord], labels: LabelVersion) -> dict[str, Any] | None:
    """The columns that records name, null where one does not; None where there are none."""
    names = dict.fromkeys(name for record in records for name in record if name not in NAMED)
    return {name: _typed([record.get(name) for record in records], name, labels) for name in names} or None


def _columns_set(records: Sequence[LabelRecord], labels: LabelVersion) -> list[ColumnsSet]:
    """A change of each column, of the labels whose records name it."""
    changes = []
    for name in dict.fromkeys(name for record in records for name in record if name not in NAMED):
        naming = [record for record in records if name in record]
        values = _typed([record[name] for record in naming], name, labels)
        changes.append(ColumnsSet([record["uid"] for record in naming], {name: values}))
    return changes


def _typed(values: list[Any], name: str, labels: LabelVersion) -> Any:
    """Strings for a column of another type, such as dates, as values of it; all else as it is."""
    kind = labels.columns.field(name).type if name in labels.columns.names else None
    if kind is None or kind == pa.string() or not any(isinstance(value, str) for value in values):
        return values
    try:
        return pa.array(values, pa.string()).cast(kind)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(
            f"The column {name!r} of the labels is of type {kind}, which not all of {values!r:.100} are: {error}"
        ) from error


def _refuse_misfits(edits: LabelEdits, labels: LabelVersion) -> None:
    """Refuse columns that do not fit before any text is encoded, by setting and adding them without vectors."""
    for change in _columns_set(edits.update, labels):
        labels = change(labels)
    if edits.add:
        texts = [record.get("text") or "" for record in edits.add]
        new_rows(labels, [record["uid"] for record in edits.add], texts, _columns_of(edits.add, labels))
