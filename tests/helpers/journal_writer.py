"""A program that writes a journal of changes, whose writes are recorded: FOLDER COPIES.

After each change that was confirmed it makes a folder whose name is the number of the change, so that the trace tells what was
promised. Once on the way the file is written anew without the changes that a run holds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from write_events import Action, arm

from xmc.serve.journal import Journal

CHANGES = 12
CUTS = {5: 2, 9: 6}
"""After which change the file is cut, and the last change that is in the run then."""


def main(folder: Path, copies: str) -> None:
    """Write all changes."""
    arm(str(folder), Action("trace", copies=copies))
    journal = Journal(folder / "changes.journal")
    for number in range(1, CHANGES + 1):
        journal.follow()
        with journal.writing() as writer:
            journal.follow()
            writer.append({"text": f"change {number} " + "x" * (37 * number)})
            (folder / str(number)).mkdir()
            if number in CUTS:
                writer.cut(CUTS[number], f"run {number}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
