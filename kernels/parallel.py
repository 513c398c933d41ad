"""Numba functions whose loops run in parallel: the one guard through which all of them are called."""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import numba

from xmc.kernels.forks import in_forked_child

__all__ = ["ParallelKernel", "parallel_kernel", "several_callers_may_run"]

P = ParamSpec("P")
R = TypeVar("R")

_turn = threading.Lock()


class ParallelKernel(Generic[P, R]):
    """A function compiled by numba, whose `numba.prange` loops run in parallel; any thread and any process may call it.

    Of numba's threading layers TBB and OpenMP take any number of callers. "workqueue", which numba falls back to where
    neither is installed, ends the process when two threads call it: then calls take turns. None of them survives a fork:
    in a forked child the loops run one iteration after the other, in a function compiled for that.
    """

    def __init__(self, function: Callable[P, R], **options: Any) -> None:
        """options: of `numba.njit`."""
        functools.update_wrapper(self, function)
        self._in_parallel = numba.njit(function, cache=True, parallel=True, **options)
        self._in_turn = numba.njit(_renamed(function), cache=True, **options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Wait for the turn, where callers must take turns, and run."""
        result: R
        if in_forked_child():
            result = self._in_turn(*args, **kwargs)
        elif several_callers_may_run():
            result = self._in_parallel(*args, **kwargs)
        else:
            with _turn:
                result = self._in_parallel(*args, **kwargs)
        return result


def parallel_kernel(**options: Any) -> Callable[[Callable[P, R]], ParallelKernel[P, R]]:
    """Decorate a function with loops over `numba.prange`; options: of `numba.njit`, such as fastmath and nogil.

    No other place may call `numba.njit` with parallel=True.
    """
    return lambda function: ParallelKernel(function, **options)


def several_callers_may_run() -> bool:
    """Whether kernels take several callers at once: False until the first has run, which tells numba's threading layer."""
    if in_forked_child():
        return True
    try:
        return str(numba.threading_layer()) != "workqueue"
    except ValueError:
        return False


def _renamed(function: Callable[P, R]) -> Callable[P, R]:
    """The same function by another name: numba's cache on disk tells functions apart by name and line alone."""
    assert isinstance(function, types.FunctionType)
    code, name = function.__code__, function.__name__
    copy = types.FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)
    copy.__module__, copy.__qualname__ = function.__module__, f"{function.__qualname__}_in_turn"
    return copy
