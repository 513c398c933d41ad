"""Steps that run ahead of one another: order, and what an error leaves undone."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from xmc.batch.pipeline import Pipeline


def test_results_come_in_order() -> None:
    with Pipeline() as pipeline:
        doubled = pipeline.apply([("double", lambda item: 2 * item)], range(50), "one")
        assert list(pipeline.apply([("add", lambda item: item + 1)], doubled, "other")) == list(range(1, 100, 2))
    assert set(pipeline.busy) == {"double", "add"}


def test_no_item_behind_a_failed_one_is_worked_on() -> None:
    """Even those that wait in the thread already, when the error happens."""
    worked, all_wait = [], threading.Event()

    def step(item: int) -> int:
        worked.append(item)
        if item == 2:
            assert all_wait.wait(60)
            raise OSError("no room")
        return item

    def items() -> Iterator[int]:
        for item in range(10):
            if item == 5:
                raise AssertionError("no more are taken ahead")
            if item == 4:
                threading.Timer(0.1, all_wait.set).start()
            yield item

    with Pipeline() as pipeline, pytest.raises(OSError, match="no room"):
        list(pipeline.apply([("write", step)], items(), "write"))
    assert worked == [0, 1, 2]
