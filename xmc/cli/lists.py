"""Options with a list of numbers, however it is typed: `--k 1 5 10`, `--k 1,5,10`, `--k 1 --k 5`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

from xmc.errors import ConfigError

__all__ = ["NumberLists", "parse_integers"]

_NUMBER = re.compile(r"\d+(,\d+)*,?")


class NumberLists(TyperCommand):
    """A command where all numbers that follow on --k are its own, not the next arguments; -k is the same."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the numbers behind --k into one argument before the others are read."""
        joined: list[str] = []
        for argument in args:
            if (
                len(joined) > 1
                and joined[-2] in ("--k", "-k")
                and _NUMBER.fullmatch(joined[-1])
                and _NUMBER.fullmatch(argument)
            ):
                joined[-1] = f"{joined[-1].rstrip(',')},{argument}"
            else:
                joined.append(argument)
        return super().parse_args(ctx, joined)


def parse_integers(texts: Sequence[str] | None, option: str) -> list[int] | None:
    """The integers in arguments such as "1,5,10", None for no argument; ConfigError, which names the option, for others."""
    if not texts:
        return None
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not parts or not all(re.fullmatch(r"[0-9]{1,9}", part) and int(part) for part in parts):
        raise ConfigError(f"{option} must be integers from 1, such as {option} 1,5,10, but is {' '.join(texts)!r}.")
    return [int(part) for part in parts]
