"""The command `xmc`, from outside the package: a stranger's `xmc` on the import path is named in a sentence, not imported."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit code 2 and one sentence where another package named `xmc` is installed."""
    file = Path(__file__).resolve().parent / "xmc" / "namesake.py"
    spec = importlib.util.spec_from_file_location("xmc_namesake", file)
    assert spec is not None
    assert spec.loader is not None
    namesake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(namesake)
    refusal = namesake.why_not_beside()
    if refusal is not None:
        print(f"error: {refusal}", file=sys.stderr)
        sys.exit(2)
    from xmc.cli import main as command

    command()
