"""Targets: folders in every layout of the field, as conversions read them."""

from __future__ import annotations

from layouts import LAYOUTS

from fuzzing.conversions import convert_safely, write_there
from fuzzing.targets import Case, Target, register


def read(case: Case) -> None:
    """A conversion of the folder."""
    convert_safely(case.folder, case)


for _name, (_write, _) in LAYOUTS.items():
    register(Target(f"layout {_name}", _write, read, prepare=write_there))
