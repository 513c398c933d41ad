"""`xmc doctor`: what is installed, what of it works, and the command for what does not."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from xmc.cli.console import console, say


def doctor(json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False) -> None:
    """Try torch, Triton and FAISS on the processor and on GPUs; exit code 1 where something that is installed fails."""
    import json
    import platform

    from xmc.doctor import examine
    from xmc.doctor.findings import is_well
    from xmc.progress import progress
    from xmc.version import __version__

    with progress("examining") as line:
        findings = examine(line.say)
    well = is_well(findings)
    if json_output:
        about = {"xmc": __version__, "python": platform.python_version(), "system": platform.platform()}
        typer.echo(
            json.dumps({**about, "well": well, "findings": [finding.to_dict() for finding in findings]}, indent=2)
        )
    else:
        say(f"xmc {__version__}, Python {platform.python_version()}, {platform.platform()}")
        table = Table(box=SIMPLE_HEAD)
        for column in ("", "state", "installed", "remark"):
            table.add_column(column, overflow="fold")
        for finding in findings:
            table.add_row(*map(escape, (finding.name, finding.state, finding.version, finding.says)))
        console.print(table)
        for finding in findings:
            if finding.command:
                say(f"{finding.name}: {finding.command}")
    raise typer.Exit(0 if well else 1)
