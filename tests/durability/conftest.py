"""Commands that run in children of one process, and what they work on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_server import CommandServer, hub_variables
from durable_stock import write_repository, write_stock
from hub_server import serving


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets, runs and files to take from; nothing is written into it."""
    return write_stock(tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="session")
def server(stock: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    """Runs commands in forked children, whose writes are watched; there is a hub that has a run."""
    folder = tmp_path_factory.mktemp("commands")
    write_repository(folder / "hub", stock / "run")
    with serving(folder / "hub") as address:
        server = CommandServer(folder, hub_variables(address, folder))
        yield server
        server.close()
