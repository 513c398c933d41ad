"""Cells that a spreadsheet would take for formulas: text is text again by an apostrophe before it, which can be taken away."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["escaped", "escaped_name", "restored", "restored_lists"]

_BEGINS = r"'*[=+\-@\t\r\n＝＋－＠]"
"""What a formula begins with (OWASP, CSV injection), and apostrophes before it, so that what is escaped can be told from what
was there."""
_NUMBER = r"^[+-]?[0-9][0-9.,]*([eE][+-]?[0-9]+)?$"
"""Begins like a formula and is none."""


def escaped(cells: pa.Array) -> pa.Array:
    """Strings, as a spreadsheet shows them: those that it would take for formulas have an apostrophe before them."""
    cells = cells.cast(pa.string())
    formulas = pc.and_not(pc.match_substring_regex(cells, f"^{_BEGINS}"), pc.match_substring_regex(cells, _NUMBER))
    if not pc.any(formulas).as_py():
        return cells
    return pc.if_else(formulas, pc.binary_join_element_wise("'", cells, ""), cells)


def escaped_name(name: str) -> str:
    """The name of a column as `escaped` writes it."""
    return str(escaped(pa.array([name]))[0])


def restored(cells: pa.Array) -> pa.Array:
    """What `escaped` was given."""
    return pc.if_else(pc.match_substring_regex(cells, f"^'{_BEGINS}"), pc.utf8_slice_codeunits(cells, start=1), cells)


def restored_lists(lists: pa.Array) -> pa.Array:
    """Lists of strings that were joined to cells, `escaped`, and split again: the apostrophe stands before a list's first."""
    if not isinstance(lists, pa.Array):
        return pa.chunked_array([restored_lists(chunk) for chunk in lists.chunks], lists.type)
    items = pc.list_flatten(lists)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    first = np.zeros(len(items), bool)
    first[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
    mask = pa.array(first)
    items = pc.replace_with_mask(items, mask, restored(items.filter(mask)))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, items, mask=pc.is_null(lists))
