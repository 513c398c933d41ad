"""Subsets by the sum of their costs: in order, and counted exactly without listing them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import comb

__all__ = ["count_subsets", "subsets_by_cost"]


def subsets_by_cost(costs: Sequence[int]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """All subsets of some items as (sum of costs, numbers of the items), cheapest first, beginning with the empty one.

    costs: whole numbers >= 0. The next subset takes O(log of those given so far), so as many may be taken as are wanted.
    Ties come in an order that depends on the costs and the numbers of the items alone.
    """
    yield 0, ()
    order = sorted(range(len(costs)), key=lambda place: (costs[place], place))
    if not order:
        return
    # A subset whose last item is the i-th has two children: with the next item added, or in its place. Neither is cheaper.
    heap: list[tuple[int, int, tuple[int, ...]]] = [(costs[order[0]], 0, (0,))]
    while heap:
        cost, last, items = heapq.heappop(heap)
        yield cost, tuple(order[item] for item in items)
        after = last + 1
        if after < len(order):
            more = costs[order[after]]
            heapq.heappush(heap, (cost + more, after, (*items, after)))
            heapq.heappush(heap, (cost + more - costs[order[last]], after, (*items[:-1], after)))


def count_subsets(costs: Sequence[int], budgets: Sequence[int]) -> list[int]:
    """The number of subsets that cost no more than each budget, exact; 0 for a budget below 0.

    The coefficient of x^c in Π_i (1 + x^costs[i]) is the number of subsets that cost c. The polynomial, cut at the largest
    budget, is one Python integer with a digit for each c, so that a factor is a shift and an addition; equal costs are one
    factor, of binomials.
    """
    largest = max(budgets, default=-1)
    if largest < 0:
        return [0] * len(budgets)
    affordable = sorted(cost for cost in costs if cost <= largest)
    most = sum(total <= largest for total in accumulate(affordable))  # items of the largest subset
    width = sum(comb(len(affordable), items) for items in range(most + 1)).bit_length() + 1
    kept_digits = (1 << width * (largest + 1)) - 1
    polynomial = 1
    for cost, copies in sorted(Counter(affordable).items()):
        if cost == 0:
            polynomial <<= copies
            continue
        polynomial = sum(
            comb(copies, taken) * (polynomial << width * cost * taken)
            for taken in range(min(copies, largest // cost) + 1)
        )
        polynomial &= kept_digits
    # The sum of a number's digits is its remainder by the base less one, where it is less than that.
    digit_sum = (1 << width) - 1
    return [0 if budget < 0 else (polynomial & ((1 << width * (budget + 1)) - 1)) % digit_sum for budget in budgets]
