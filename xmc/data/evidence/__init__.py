"""Evidence about pairs beside given labels: votes of sources, candidate sets, label proportions; a kind a module."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from xmc.data.evidence.candidate_sets import CandidateSets
from xmc.data.evidence.label_bags import LabelBags
from xmc.data.evidence.rows import Evidence
from xmc.data.evidence.votes import Votes
from xmc.errors import InputError

__all__ = ["ARGUMENTS", "EVIDENCE", "CandidateSets", "Evidence", "LabelBags", "Votes", "evidence_tables"]

EVIDENCE: dict[str, type[Evidence]] = {kind.kind: kind for kind in (Votes, CandidateSets, LabelBags)}
"""The kinds by the first word of their files' names, such as votes-train.parquet."""
ARGUMENTS: dict[str, type[Evidence]] = {"votes": Votes, "candidate_sets": CandidateSets, "label_bags": LabelBags}
"""The kinds by what functions and methods call them."""


def evidence_tables(argument: str, by_split: Mapping[str, Evidence | None]) -> dict[str, pa.Table]:
    """The tables by file stem of evidence of one kind, named as in ARGUMENTS. Raises InputError for evidence of another."""
    kind = ARGUMENTS[argument]
    for split, given in by_split.items():
        if given is not None and not isinstance(given, kind):
            raise InputError(
                f"{argument} of the split {split!r} must be of the type {kind.__name__}, but is {given!r:.100}, of type "
                f"{type(given).__name__}."
            )
    return {f"{kind.kind}-{split}": given.table() for split, given in by_split.items() if given is not None}
