"""`xmc data`: convert, split, inspect and validate data sets, and their images; one file a command."""

from __future__ import annotations

import typer

from xmc.cli.data import convert, embed_images, import_images, inspect, seal, split, validate
from xmc.cli.data.formats import FormatsCommand

__all__ = ["app"]

app = typer.Typer(help="Convert, split, inspect, validate and seal data sets.", no_args_is_help=True)
app.command(cls=FormatsCommand)(convert.convert)
app.command()(split.split)
app.command(cls=FormatsCommand)(validate.validate)
app.command()(inspect.inspect)
app.command()(embed_images.embed_images)
app.command()(import_images.import_images)
app.command()(seal.seal)
