"""Conditions over label columns, written as a text: `market == "de" and price < 10`."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyarrow import compute as pc

from xmc.errors import InputError

__all__ = ["ALLOWED", "parse_predicate"]

ALLOWED = (
    "column names, numbers, strings, True and False, compared by ==, !=, <, <=, >, >=, by `in` and `not in` with a list "
    "of them, or by `is None` and `is not None`, joined by and, or, not and parentheses"
)

LONGEST = 1_000_000
"""Characters of a condition."""
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], pc.Expression]] = {
    ast.Eq: lambda left, right: left == right,
    ast.NotEq: lambda left, right: left != right,
    ast.Lt: lambda left, right: left < right,
    ast.LtE: lambda left, right: left <= right,
    ast.Gt: lambda left, right: left > right,
    ast.GtE: lambda left, right: left >= right,
}


def parse_predicate(text: str) -> pc.Expression:
    """The Arrow expression of a condition in Python's syntax, limited to what `ALLOWED` says; nothing is run.

    As in SQL, a comparison with a null is null, `not` leaves it null, and null is no match: `price < 10` and
    `not price < 10` both leave out a label without a price. `x in [a, b]` means x == a or x == b. Chains such as
    `5 < price <= 10` are taken as Python takes them. A column whose name is no Python name can be had by an expression of
    pyarrow.compute only.

    Raises InputError, which shows the piece of text and what is allowed.

    >>> parse_predicate("market in ['de', 'at'] and not price >= 10")
    <pyarrow.compute.Expression (((market == "de") or (market == "at")) and invert((price >= 10)))>
    """
    if len(text) > LONGEST:
        raise InputError(
            f"The condition {text[:80]!r}... has {len(text):,} characters, and {LONGEST:,} are the most; select by "
            f"pyarrow.compute.is_in in Python, or by a column that says what the condition lists."
        )
    try:
        return _Parser(text).condition(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise InputError(f"The condition {text!r} cannot be read ({reason}); it may hold {ALLOWED}.") from error
    except (RecursionError, MemoryError) as error:
        raise InputError(f"The condition {text[:80]!r}... is nested too deeply; write fewer parentheses.") from error


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text.strip()

    def condition(self, node: ast.expr) -> pc.Expression:
        """What is true, false or null."""
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(part) for part in node.values]
            return _balanced(parts, _and if isinstance(node.op, ast.And) else _or)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.condition(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = zip(sides, node.ops, sides[1:], strict=False)
            return _balanced([self.comparison(left, op, right, node) for left, op, right in pairs], _and)
        if isinstance(node, ast.Name):
            return pc.field(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            return pc.scalar(node.value)
        raise self.refusal(node, "is no condition")

    def comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr, comparison: ast.expr) -> pc.Expression:
        """One link of a chain of comparisons."""
        if isinstance(op, (ast.Is, ast.IsNot)):
            if not isinstance(right, ast.Constant) or right.value is not None:
                raise self.refusal(comparison, "asks by `is` for something else than None")
            given = self.operand(left)
            return given.is_null() if isinstance(op, ast.Is) else given.is_valid()
        if isinstance(op, (ast.In, ast.NotIn)):
            if not isinstance(right, (ast.List, ast.Tuple)):
                raise self.refusal(right, "is no list of constants")
            given = self.operand(left)
            values = [self.constant(value) for value in right.elts]
            same = given == given  # null for a null
            among = _balanced([given == value for value in values], _or) if values else same & ~same
            return among if isinstance(op, ast.In) else ~among
        return _COMPARISONS[type(op)](self.operand(left), self.operand(right))

    def operand(self, node: ast.expr) -> pc.Expression:
        """A column or a constant."""
        return pc.field(node.id) if isinstance(node, ast.Name) else self.constant(node)

    def constant(self, node: ast.expr) -> pc.Expression:
        """A number, a string, True or False."""
        value: Any = node.value if isinstance(node, ast.Constant) else None
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            number = node.operand.value
            value = -number if isinstance(number, (int, float)) and not isinstance(number, bool) else None
        if isinstance(node, ast.Constant) and node.value is None:
            raise self.refusal(node, "compares with no value; ask `is None` or `is not None`")
        if not isinstance(value, (str, int, float)):
            raise self.refusal(node, "is neither a column nor a constant")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise self.refusal(node, "does not fit into 64 bits")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.refusal(node, "does not fit into 64 bits")
        return pc.scalar(pa.scalar(value))

    def refusal(self, node: ast.AST, reason: str) -> InputError:
        """The error that shows a piece of the text."""
        piece = ast.get_source_segment(self.text, node) or self.text
        return InputError(f"In the condition {self.text!r}, {piece!r} {reason}. A condition may hold {ALLOWED}.")


def _and(left: pc.Expression, right: pc.Expression) -> pc.Expression:
    return left & right


def _or(left: pc.Expression, right: pc.Expression) -> pc.Expression:
    return left | right


def _balanced(parts: list[pc.Expression], join: Callable[[Any, Any], pc.Expression]) -> pc.Expression:
    """All parts joined as a tree of little depth: Arrow walks it by recursion."""
    while len(parts) > 1:
        pairs = [join(left, right) for left, right in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[len(parts) - len(parts) % 2 :]
    return parts[0]
