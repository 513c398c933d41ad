"""Foreign text on terminals and in logs: shown as escapes, while colours of our own pass."""

from __future__ import annotations

import io
import logging
import shlex
import subprocess
import sys

import pytest
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from xmc.cli.console import say, shell
from xmc.terminal import LONGEST_CELL, VisibleConsole, VisibleFormatter, cell

FOREIGN = "a\x1b[31mred\x1b]8;;http://e\x07 \u202egnp.exe\x9b1m\udcff :heart: [bold]x[/bold]\r"
SHOWN = r"a\x1b[31mred\x1b]8;;http://e\x07 \u202egnp.exe\x9b1m\udcff :heart: [bold]x[/bold]"


def console(**options: object) -> tuple[VisibleConsole, io.StringIO]:
    written = io.StringIO()
    return VisibleConsole(file=written, width=200, **options), written


def test_strings_texts_and_cells_are_shown_and_not_obeyed() -> None:
    for printed in (FOREIGN, Text(FOREIGN), cell(FOREIGN)):
        shown, written = console()
        shown.print(printed, markup=False, highlight=False)
        found = written.getvalue().replace("\\x0d", "").rstrip()
        assert found.replace("\\x07", "") == SHOWN.replace("\\x07", "")  # rich itself leaves the bell out of its texts
    shown, written = console()
    table = Table("a")
    table.add_column(cell(FOREIGN))
    table.add_row(cell("two\nlines\tand a tab"), FOREIGN.replace("[", "\\["))
    shown.print(table)
    lines = written.getvalue().splitlines()
    assert len(lines) == 5  # a line end in a text makes no line of the table
    assert "two lines and a tab" in lines[3]
    assert len({len(line) for line in lines}) == 1
    assert not set("\x1b\u202e\x9b") & set(written.getvalue())


def test_colours_of_our_own_pass() -> None:
    shown, written = console(force_terminal=True, color_system="standard", legacy_windows=False)
    shown.print(Text.assemble(("error:", "red"), " \x1b[32mgreen"), highlight=False)
    assert written.getvalue() == "\x1b[31merror:\x1b[0m \\x1b[32mgreen\n"


def test_a_long_cell_is_cut_in_its_middle() -> None:
    shown = cell("begin " + "x" * 100_000 + " end").plain
    assert len(shown) == LONGEST_CELL
    assert shown.startswith("begin x")
    assert shown.endswith("x end")


def test_records_of_the_log_are_one_line() -> None:
    shown, written = console()
    for handler in (RichHandler(console=shown, show_path=False, show_time=False), logging.StreamHandler(written)):
        handler.setFormatter(VisibleFormatter("%(message)s"))
        logger = logging.Logger("foreign")
        logger.addHandler(handler)
        logger.warning("the label %s", "x\nWARNING  forged\x1b[2J")
        try:
            raise ValueError("a \x1b value")
        except ValueError:
            logger.exception("failed")
    text = written.getvalue()
    assert text.count("the label x\\x0aWARNING  forged\\x1b[2J") == 2
    assert text.count("ValueError: a \\x1b value") == 2
    assert "\x1b" not in text


def test_lines_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    say("next: " + FOREIGN)
    assert capsys.readouterr().out == f"next: {SHOWN}\\x0d\n"
    assert shell("xmc", "search", "a b", "it's") == shlex.join(["xmc", "search", "a b", "it's"])
    assert shell("x\x1b[31m'\\é") == r"$'x\x1b[31m\'\\é'"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no bash on Windows")
def test_a_shell_reads_what_was_meant() -> None:
    names = [b"a\xffb", b"\x1b[31m'q\"\\", "\u202egnp é".encode(), b"line\nfeed", b"plain"]
    command = shell("printf", "%s|", *(name.decode("utf-8", "surrogateescape") for name in names))
    assert command.isprintable()
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout == b"".join(name + b"|" for name in names)
