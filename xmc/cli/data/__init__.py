"""`xmc data`: convert, inspect and validate data sets, and their images; one file a command."""

from __future__ import annotations

import typer

from xmc.cli.data import convert, embed_images, import_images, inspect, validate

__all__ = ["app"]

app = typer.Typer(help="Convert, inspect and validate data sets.", no_args_is_help=True)
app.command()(convert.convert)
app.command()(validate.validate)
app.command()(inspect.inspect)
app.command()(embed_images.embed_images)
app.command()(import_images.import_images)
