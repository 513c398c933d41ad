"""How a program would end."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

__all__ = ["exit_code_of"]


def exit_code_of(main: Callable[[], object]) -> int:
    """The exit code that a program would have that does this; what it would print at its end is printed."""
    try:
        main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
