"""A group of options is one parameter of a command, and options of its own on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from xmc.cli.groups import with_groups


@dataclass(frozen=True)
class Sizes:
    """A group of two options."""

    width: Annotated[int, typer.Option(min=1, help="How wide.")] = 3
    height: Annotated[int | None, typer.Option("--tall", help="How tall.")] = None


app = typer.Typer()


@app.command()
@with_groups
def paint(
    name: Annotated[str, typer.Argument(help="Of what is painted.")],
    colour: Annotated[str, typer.Option(help="Of the paint.")] = "red",
    *,
    sizes: Sizes,
    twice: Annotated[bool, typer.Option("--twice", help="Two coats.")] = False,
) -> None:
    """Paint it."""
    typer.echo(f"{name} {colour} {sizes} {twice}")


def test_a_group_is_options_with_their_defaults_bounds_and_order() -> None:
    invoke = CliRunner().invoke
    assert invoke(app, ["fence"]).output == "fence red Sizes(width=3, height=None) False\n"
    given = ["fence", "--tall", "5", "--twice", "--width", "2", "--colour", "blue"]
    assert invoke(app, given).output == "fence blue Sizes(width=2, height=5) True\n"
    assert invoke(app, ["fence", "--width", "0"]).exit_code == 2
    shown = invoke(app, ["--help"], env={"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}).output
    assert "Paint it." in shown
    places = [shown.index(option) for option in ("--colour", "--width", "--tall", "--twice")]
    assert places == sorted(places)
