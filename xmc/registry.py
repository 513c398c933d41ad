"""Families by name: a registry maps each name to a member of one family, such as an encoder's class or a loss's function."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from xmc.errors import ConfigError

__all__ = ["Registry", "did_you_mean", "nearest"]

T = TypeVar("T")


def nearest(name: object, names: Iterable[str]) -> str | None:
    """The most similar of some names; None where none is similar."""
    return next(iter(difflib.get_close_matches(str(name), list(names), n=1)), None)


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """The sentence " Did you mean 'x'?" with the most similar name, or "" where none is similar."""
    near = nearest(name, names)
    return "" if near is None else f" Did you mean {near!r}?"


class Registry(Mapping[str, T]):
    """The members of one family by name, in the order in which they were registered.

    >>> sizes = Registry("size", {"small": 1})
    >>> sizes.register("large", 100)
    >>> sizes["large"], list(sizes)
    (100, ['small', 'large'])
    """

    def __init__(self, family: str, members: Mapping[str, T] | None = None) -> None:
        """family: what one member is called in messages, such as "encoder"."""
        self.family = family
        self._members: dict[str, T] = dict(members or {})

    def register(self, name: str, member: T) -> None:
        """Add a member. Raises ConfigError for a name that another member has."""
        if name in self._members:
            raise ConfigError(f"There is a {self.family} {name!r} already; register the new one under another name.")
        self._members[name] = member

    def unregister(self, name: str) -> None:
        """Remove a member; ConfigError for a name that is not there."""
        self[name]
        del self._members[name]

    def __getitem__(self, name: str) -> T:
        """The member; ConfigError with all names, and the nearest one, where there is none."""
        if name not in self._members:
            choices = ", ".join(self._members) or "none"
            raise ConfigError(f"There is no {self.family} {name!r}; choose one of {choices}.{did_you_mean(name, self)}")
        return self._members[name]

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)
