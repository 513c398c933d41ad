"""Which engine computes: `torch` tiles anywhere, or the dense float64 `reference`."""

from __future__ import annotations

import os

from xmc.errors import ConfigError

__all__ = ["BACKENDS", "choose_backend"]

BACKENDS = ("torch", "reference")


def choose_backend(impl: str | None = None) -> str:
    """The engine to use: `impl`, else the environment variable XMC_KERNELS, else "torch".

    Raises ConfigError for a name that is not in BACKENDS: an explicit request is met or refused, never replaced.
    """
    name = impl or os.environ.get("XMC_KERNELS") or "torch"
    if name not in BACKENDS:
        origin = "impl" if impl else "the environment variable XMC_KERNELS"
        raise ConfigError(f"{origin} asks for the kernel backend {name!r}; choose one of {', '.join(BACKENDS)}.")
    return name
