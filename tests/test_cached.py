"""Properties that are computed once."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass

from xmc.cached import cached_property


@dataclass(frozen=True)
class Sum:
    parts: tuple[int, ...]
    computed: list[int]

    @cached_property
    def total(self) -> int:
        """The sum of the parts."""
        self.computed.append(1)
        return sum(self.parts)


def test_it_is_computed_once_for_an_object() -> None:
    one, two = Sum((1, 2), []), Sum((3,), [])
    assert [one.total, one.total, two.total] == [3, 3, 3]
    assert [one.computed, two.computed] == [[1], [1]]
    assert Sum.total.__doc__ == "The sum of the parts."


def test_a_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    """Forked while another thread computes the property of another object."""

    class Slow:
        def __init__(self, wait: bool) -> None:
            self.wait = wait

        @cached_property
        def value(self) -> int:
            if self.wait:
                begun.set()
                done.wait(60)
            return 7

    begun, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: Slow(True).value)
    thread.start()
    begun.wait(60)
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        os._exit(Slow(False).value)
    _, status = os.waitpid(pid, 0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 7
