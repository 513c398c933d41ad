"""The special pairs of a batch in the forms that engines and searches take: sorted and unique, or flagged, or joined."""

from __future__ import annotations

import pytest
import torch
from random_kernel_inputs import random_positives

from xmc.errors import InputError
from xmc.kernels.entries import Entries, flagged_pairs
from xmc.kernels.positives import Positives

LABELS = 29
NOTHING = Positives.from_lists([[] for _ in range(7)])
SOME, OTHERS = (random_positives(7, LABELS, seed, full=False) for seed in (0, 1))
BOTH = Positives.from_lists([sorted({*SOME.indices[SOME.rows == row].tolist(), 3, 5}) for row in range(7)])
"""Pairs that are excluded and positive too, and others."""

PAIRS = {
    "apart": (SOME, OTHERS),
    "overlapping": (SOME, BOTH),
    "the same": (SOME, SOME),
    "no positives": (NOTHING, OTHERS),
    "nothing excluded": (SOME, NOTHING),
    "none given": (SOME, None),
    "nothing": (NOTHING, NOTHING),
}


@pytest.mark.parametrize("case", PAIRS)
def test_flagged_pairs_are_the_entries_unsorted(case: str) -> None:
    """Each with its slot: the positive that it is, or -1; a pair that is both may come twice, always as that positive."""
    positives, exclude = PAIRS[case]
    entries = Entries.of(positives, exclude, LABELS)
    slots = torch.arange(len(entries.columns)) if entries.slots is None else entries.slots
    expected = set(zip(entries.rows.tolist(), entries.columns.tolist(), slots.tolist(), strict=True))
    flagged = flagged_pairs(positives, exclude, LABELS)
    assert all(part.dtype == torch.int64 for part in flagged)
    assert set(zip(*(part.tolist() for part in flagged), strict=True)) == expected
    count = len(positives.indices)
    assert torch.equal(flagged[2][:count], torch.arange(count))
    assert len(flagged[2]) == count + (0 if exclude is None else len(exclude.indices))


@pytest.mark.parametrize("case", PAIRS)
def test_joined_pairs_are_those_of_both(case: str) -> None:
    one, other = PAIRS[case]
    joined = one.joined(other, LABELS)
    entries = Entries.of(one, other, LABELS)
    assert set(zip(joined.rows.tolist(), joined.indices.tolist(), strict=True)) == set(
        zip(entries.rows.tolist(), entries.columns.tolist(), strict=True)
    )
    assert joined.weights is None or joined is one
    if len(joined.indices):
        assert (joined.lowest, joined.highest) == (int(joined.indices.min()), int(joined.indices.max()))


def test_what_is_known_of_positives_moves_with_them() -> None:
    """On the meta device there are no values to be asked for."""
    positives = Positives.from_lists([[1, 4], [], [2]], [[1.0, 0.5], [], [2.0]])
    moved = positives.to("meta")
    assert (moved.lowest, moved.highest) == (positives.lowest, positives.highest) == (1, 4)
    moved.check(3, 5)
    with pytest.raises(InputError, match=r"range from 1 to 4, outside of the 4 labels"):
        moved.check(3, 4)
    assert moved.rows.shape == (3,)
    assert moved.weights is not None
    assert moved.weights.device.type == "meta"
    rows, columns, slots = flagged_pairs(moved, positives.to("meta"), 5)
    assert rows.shape == columns.shape == slots.shape == (6,)
    assert moved.joined(moved, 5).indices.shape == (6,)


def test_positives_without_indices_fit_any_number_of_labels() -> None:
    NOTHING.check(7, 0)
    Positives.none(7).check(7, 0)
    assert (NOTHING.lowest, NOTHING.highest) == (0, -1)
