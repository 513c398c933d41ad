"""What a value of the configuration must be, and the nearest name to a mistaken one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = ["FieldError", "nearest"]


class FieldError(ValueError):
    """A value that does not fit its field; the message says what it must be, as in FieldError("must be five numbers")."""

    def __init__(self, wanted: str, hint: str = "", value: Any = None) -> None:
        """hint: a further sentence, with a space before it. value: what is named, by default the field's value."""
        super().__init__(wanted)
        self.wanted, self.hint, self.value = wanted, hint, value


def nearest(name: object, names: Iterable[str]) -> str:
    """The sentence " Did you mean 'x'?" with the most similar name, or "" where none is similar."""
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
