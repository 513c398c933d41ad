"""Properties that are computed once for an object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

__all__ = ["cached_property"]

T = TypeVar("T")


class cached_property(Generic[T]):
    """As functools.cached_property from Python 3.12 on: without a lock.

    Before, all objects share one for each property, and a child that is forked while another thread computes would wait for
    that thread for ever. Two threads may compute a value at once; one of two that are equal is kept.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        """compute: the value of an object."""
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> cached_property[T]: ...

    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...

    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> cached_property[T] | T:
        """The value; it takes the property's place in the object."""
        if instance is None:
            return self
        value = self.compute(instance)
        return vars(instance).setdefault(self.name, value)  # type: ignore[no-any-return]
