"""What a value of the configuration must be."""

from __future__ import annotations

from typing import Any

__all__ = ["FieldError"]


class FieldError(ValueError):
    """A value that does not fit its field; the message says what it must be, as in FieldError("must be five numbers")."""

    def __init__(self, wanted: str, hint: str = "", value: Any = None) -> None:
        """hint: a further sentence, with a space before it. value: what is named, by default the field's value."""
        super().__init__(wanted)
        self.wanted, self.hint, self.value = wanted, hint, value
