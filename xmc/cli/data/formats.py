"""Commands whose help lists the formats of data sets, as the registry of readers has them."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

__all__ = ["FormatsCommand"]


class FormatsCommand(TyperCommand):
    """A command with the option --format; the readers are imported only where its help is shown."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with the names of all formats."""
        from xmc.data.readers import READERS

        for parameter in self.params:
            if parameter.name == "format":
                setattr(parameter, "help", f"{', '.join(READERS)}; by default what the files show.")  # noqa: B010
        super().format_help(ctx, formatter)
