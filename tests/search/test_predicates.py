"""Conditions over label columns, against Python's own evaluation with SQL's nulls."""

from __future__ import annotations

import doctest
import math
import operator
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import compute as pc

from xmc.errors import InputError
from xmc.search import predicates
from xmc.search.labels import LabelVersion
from xmc.search.predicates import parse_predicate

VALUES: dict[str, Any] = {
    "market": st.sampled_from(["de", "fr", "", "it's", 'a "quote"', "Größe"]),
    "stock": st.integers(-3, 3),
    "price": st.sampled_from([-1.5, -0.0, 0.0, 0.5, 2.0, math.nan, math.inf]),
    "new": st.booleans(),
}
CONSTANTS = {**VALUES, "price": st.sampled_from([-1.5, -0.0, 0.0, 0.5, 2.0])}
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Meaning = Callable[[dict[str, Any]], "bool | None"]


def compared(symbol: str, left: Any, right: Any) -> bool | None:
    return None if left is None or right is None else COMPARE[symbol](left, right)


def both(left: bool | None, right: bool | None) -> bool | None:
    return False if left is False or right is False else None if left is None or right is None else True


def negated(value: bool | None) -> bool | None:
    return None if value is None else not value


@st.composite
def comparisons(draw: Any) -> tuple[str, Meaning]:
    """A condition on one column, as a text and as what it means for a row."""
    name = draw(st.sampled_from(list(VALUES)))
    first, second = draw(CONSTANTS[name]), draw(CONSTANTS[name])
    one, two = (draw(st.sampled_from(["==", "!="] if name == "new" else list(COMPARE))) for _ in range(2))
    values = draw(st.lists(CONSTANTS[name], max_size=4))
    shapes: list[tuple[str, Meaning]] = [
        (f"{name} {one} {first!r}", lambda row: compared(one, row[name], first)),
        (f"{first!r} {one} {name}", lambda row: compared(one, first, row[name])),
        (
            f"{first!r} {one} {name} {two} {second!r}",
            lambda row: both(compared(one, first, row[name]), compared(two, row[name], second)),
        ),
        (f"{name} in {values!r}", lambda row: None if row[name] is None else row[name] in values),
        (f"{name} not in {tuple(values)!r}", lambda row: None if row[name] is None else row[name] not in values),
        (f"{name} is None", lambda row: row[name] is None),
        (f"{name} is not None", lambda row: row[name] is not None),
        (f"{name} {one} {name}", lambda row: compared(one, row[name], row[name])),
    ]
    if name == "new":
        shapes.append((name, lambda row: row[name]))
    return draw(st.sampled_from(shapes))


def joined(parts: st.SearchStrategy[tuple[str, Meaning]]) -> st.SearchStrategy[tuple[str, Meaning]]:
    def conjunction(pair: Any) -> tuple[str, Meaning]:
        (one, first), (two, second) = pair
        return f"({one}) and ({two})", lambda row: both(first(row), second(row))

    def disjunction(pair: Any) -> tuple[str, Meaning]:
        (one, first), (two, second) = pair
        return f"({one}) or ({two})", lambda row: negated(both(negated(first(row)), negated(second(row))))

    def negation(part: Any) -> tuple[str, Meaning]:
        return f"not ({part[0]})", lambda row: negated(part[1](row))

    pairs = st.tuples(parts, parts)
    return st.one_of(pairs.map(conjunction), pairs.map(disjunction), parts.map(negation))


ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()}), min_size=1, max_size=8
)


@settings(deadline=None, max_examples=300)
@given(rows=ROWS, condition=st.recursive(comparisons(), joined, max_leaves=6))
def test_conditions_mean_what_python_says(rows: list[dict[str, Any]], condition: tuple[str, Meaning]) -> None:
    text, meaning = condition
    rows = [*rows, {"market": "x", "stock": 1, "price": 1.0, "new": True}]  # so that every column has its type
    names = [str(number) for number in range(len(rows))]
    table = LabelVersion.from_lists(names, names, {name: [row[name] for row in rows] for name in VALUES})
    assert table.matching(parse_predicate(text)).tolist() == [meaning(row) is True for row in rows], text


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("price + 1 > 2", "'price \\+ 1' is neither a column nor a constant"),
        ("f(price)", r"'f\(price\)' is no condition"),
        ("__import__('os').system('true')", "is no condition"),
        ("market.x == 1", "'market.x' is neither"),
        ("price[0] == 1", r"'price\[0\]' is neither"),
        ("'de'", "is no condition"),
        ("3", "'3' is no condition"),
        ("price == None", "ask `is None`"),
        ("price in (1, None)", "ask `is None`"),
        ("price is 3", "for something else than None"),
        ("'de' in market", "'market' is no list"),
        ("price in [stock]", "'stock' is neither"),
        ("(price == 1) == True", "'price == 1' is neither"),
        ("price == b'x'", "neither a column nor a constant"),
        ("price == 1j", "neither a column nor a constant"),
        ("price == -'x'", "neither a column nor a constant"),
        ("price == 99999999999999999999", "does not fit into 64 bits"),
        ("price == 1e999", "does not fit into 64 bits"),
        ("lambda: new", "is no condition"),
        ("[new for new in new]", "is no condition"),
        ("new if new else new", "is no condition"),
        ("new; new", "cannot be read"),
        ("price = 3", "cannot be read"),
        ("price ==", "cannot be read"),
        ("", "cannot be read"),
        ("new\0", "cannot be read"),
        ("(" * 500 + "new" + ")" * 500, "cannot be read|too deeply"),
        ("not " * 100_000 + "new", "too deeply"),
    ],
)
def test_all_else_is_refused_with_its_piece(text: str, piece: str) -> None:
    with pytest.raises(InputError, match=piece):
        parse_predicate(text)


def test_a_condition_that_does_not_fit_names_the_columns() -> None:
    table = LabelVersion.from_lists(["a", "b"], ["x", "y"], {"price": [1, None], "row": [1, 2]})
    for text, reason in (("prize < 3", "prize"), ("price == 'x'", "equal"), ("uid", "must evaluate to bool")):
        with pytest.raises(InputError, match=rf"uid \(string\), text \(string\), price \(int64\), row .*{reason}"):
            table.matching(parse_predicate(text))
    assert table.matching(parse_predicate("row == 2 and uid != text")).tolist() == [False, True]
    assert table.matching(pc.field("price") == 1).tolist() == [True, False]
    many = " or ".join(f"price == {number}" for number in range(3000))  # as deep as it is long, were it not balanced
    assert table.matching(parse_predicate(many)).tolist() == [True, False]
    assert table.matching(parse_predicate("True")).tolist() == [True, True]


AFTER_CHANGES = """
import numpy as np
from xmc.indexes.factory import index_version
from xmc.search.changes import Added
from xmc.search.labels import LabelVersion
from xmc.search.predicates import parse_predicate
vectors = np.ones((1, 4), np.float32)
labels = LabelVersion.from_lists(["first"], ["first"], None, index_version("exact", vectors, vectors[:0]))
for number in range(40):
    labels = Added([str(number)], ["text"], vectors, None)(labels)
labels.matching(parse_predicate("True"))
"""


@pytest.mark.slow
def test_a_program_that_ends_after_a_condition_ends_well() -> None:
    """A thread of Arrow that still runs then ends the process by abort, in most runs of this program."""
    programs = [subprocess.Popen([sys.executable, "-c", AFTER_CHANGES], stderr=subprocess.PIPE) for _ in range(4)]
    assert [(program.communicate()[1], program.returncode) for program in programs] == [(b"", 0)] * 4


def test_the_documented_example() -> None:
    assert doctest.testmod(predicates).failed == 0
