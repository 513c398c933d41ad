"""Sizes and durations as people write them: 2GB, 10m."""

from __future__ import annotations

import re

from xmc.errors import ConfigError

__all__ = ["parse_bytes", "parse_seconds"]

_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_bytes(text: str, option: str) -> int:
    """Bytes of a size such as 2GB, 500MiB or 1000; ConfigError, which names the option, for anything else."""
    return int(_parse(text, option, dict(_BYTES), "a size such as 2GB or 500MiB"))


def parse_seconds(text: str, option: str) -> float:
    """Seconds of a duration such as 10m, 90s, 1h or 45; ConfigError, which names the option, for anything else."""
    return _parse(text, option, _SECONDS, "a duration such as 10m, 90s or 1h")


def _parse(text: str, option: str, units: dict[str, float] | dict[str, int], expected: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].lower() not in units or float(match[1]) == 0:
        raise ConfigError(f"{option} must be {expected}, but is {text!r}.")
    return float(match[1]) * units[match[2].lower()]
