"""The folder of a finished job: what its list says, with every part verified."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from xmc.batch.output import SUCCESS
from xmc.errors import StoreError
from xmc.storage.files import read_json
from xmc.storage.manifests import is_entry, verify_files

__all__ = ["finished_job"]

MOST_BYTES = 1 << 28
"""Of the list of a job's parts, at most: a million parts."""
_PART = re.compile(r"part-\d+\.\w+")


def finished_job(folder: Path) -> dict[str, Any]:
    """What _SUCCESS says of a job in a local folder, whose parts are exactly those that it lists, as they were written.

    Raises StoreError for a job that is not finished, a list of another form, and a part that is missing, not listed or
    different.
    """
    file = folder / SUCCESS
    if not file.is_file():
        raise StoreError(f"{folder} has no {SUCCESS}: its job is not finished; go on with it by --resume.")
    job = read_json(file, StoreError, "Predict into another folder.", MOST_BYTES)
    parts = job.get("parts") if isinstance(job, dict) else None
    if not isinstance(parts, list) or not all(map(_is_part, parts)):
        raise StoreError(
            f"{file} cannot be read: it has no list of parts that a job wrote. Predict into another folder."
        )
    listed = {part["name"]: {"size": _size(folder, part), "sha256": part["sha256"]} for part in parts}
    if len(listed) < len(parts):
        raise StoreError(f"{file} cannot be read: it lists a part twice. Predict into another folder.")
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("part-") and entry.name not in listed:
            raise StoreError(
                f"{entry} is not among the parts that {SUCCESS} lists: somebody put it there. Move it away."
            )
    try:
        verify_files(folder, listed, what=SUCCESS)
    except StoreError as error:
        raise StoreError(f"{error} Or predict into another folder.") from error
    return dict(job)


def _is_part(part: Any) -> bool:
    """Whether it is what a job says of a part; jobs of versions before say no size."""
    return (
        isinstance(part, dict)
        and isinstance(part.get("name"), str)
        and _PART.fullmatch(part["name"]) is not None
        and is_entry({"size": 0, **part})
    )


def _size(folder: Path, part: dict[str, Any]) -> int:
    """Bytes that a part must have; those that it has, where the list does not say it."""
    file = folder / part["name"]
    return int(part["size"]) if "size" in part else file.stat().st_size if file.is_file() else 0
