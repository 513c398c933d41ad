"""What a server is told when it starts: where it listens, how many processes answer, and the limits of a request."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xmc.errors import ConfigError

__all__ = ["TOKEN", "Limits", "Settings", "read_token"]

TOKEN = "XMC_TOKEN"
"""Environment variable of the token that changes of labels need."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how much may wait; beyond them a request is refused with a status of its own.

    texts: number of texts, or vectors, in a request (422). text_bytes: length of a text in UTF-8 (422). k: number of labels for
    each (422). passages: number that the texts of a request may be cut into (422). body_bytes: of a request's body (413).
    waiting: number of requests that wait for an answer or get one now; more are told to come again (429). seconds: from a
    whole request to its answer (504), and as many for the client to send it (408). connections: open at one time in a process;
    more are refused (503). batch: number of texts that are answered together. window: seconds that a batch may wait to be
    joined by further requests, where several are under way.
    """

    texts: int = 256
    text_bytes: int = 65_536
    k: int = 1_000
    passages: int = 4_096
    body_bytes: int = 4 * 2**20
    waiting: int = 1_024
    seconds: float = 10.0
    connections: int = 4_096
    batch: int = 256
    window: float = 0.005

    def __post_init__(self) -> None:
        """ConfigError for a limit that refuses everything."""
        for name, value in vars(self).items():
            if not (value > 0 or (name == "window" and value == 0)):
                raise ConfigError(f"The limit {name} must be above 0, but is {value!r}.")


@dataclass(frozen=True)
class Settings:
    """A server: the run it answers from, where it listens, and with what.

    port: 0 for any that is free. workers: number of processes that answer. device: see `Retriever.load`. token: what POST
    requests that change labels must carry; None refuses all of them. It is never shown.
    """

    run: Path
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    device: str = "auto"
    limits: Limits = field(default_factory=Limits)
    token: str | None = field(default=None, repr=False)


def read_token(file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The token in a file, else that of the environment; None for none.

    Raises ConfigError for a file that cannot be read, and for a token that is empty or holds more than visible ASCII.
    """
    if file is None:
        token, source = environment.get(TOKEN), f"The environment variable {TOKEN}"
    else:
        source = f"The token file {file}"
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source} cannot be read: {error}.") from error
    if token is None:
        return None
    if not token or not all("!" <= character <= "~" for character in token):
        raise ConfigError(f"{source} must hold a token of visible ASCII characters; write one, or leave it out.")
    return token
