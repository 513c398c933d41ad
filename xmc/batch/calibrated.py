"""What a job is asked of a calibrated run, as it is written on the command line, and checked before the input is read."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import TypeVar

from xmc.batch.options import JobOptions
from xmc.calibration.calibration import require_calibration
from xmc.calibration.decisions import Policy
from xmc.calibration.sets import Wanted
from xmc.errors import InputError
from xmc.search.answers import AnswerParts
from xmc.search.run_directory import RunDirectory

__all__ = ["parse_parts", "require_calibrated"]

logger = logging.getLogger("xmc.batch")

T = TypeVar("T")


def parse_parts(probabilities: bool, sets: Wanted | str | None, decide: Policy | str | None) -> AnswerParts:
    """The parts of an answer. sets, decide: also as texts, such as "recall=0.9" and "automatic=0.9,person=0.1".

    Raises InputError for a text that cannot be read, and for values that do not fit.
    """
    if isinstance(sets, str):
        form = "one of recall=SHARE, false-positive-share=SHARE and significance=SHARE, such as recall=0.9"
        sets = _parsed(Wanted, "sets", sets, form)
    if isinstance(decide, str):
        decide = _parsed(Policy, "decide", decide, "automatic=SHARE,person=SHARE, such as automatic=0.9,person=0.1")
    return AnswerParts(probabilities, sets, decide)


def require_calibrated(
    parts: AnswerParts, run: str, k: int, where: str | None, rerank: bool | None, options: JobOptions
) -> None:
    """Raise InputError where a job cannot have these parts, StoreError where there is no run. Logs what a policy may expect."""
    names = ", ".join(parts.describe())
    if where is not None:
        raise InputError(f"A run is calibrated for all of its labels; leave out the condition where, or {names}.")
    if rerank is False:
        raise InputError(f"A run is calibrated with the stages that it has; leave out rerank=False, or {names}.")
    if options.index_shards:
        raise InputError(f"A run is calibrated with its own index; leave out index_shards, or {names}.")
    calibration = require_calibration(RunDirectory(run).read_calibration(), f"The run {run}")
    parts.require(calibration, k)
    if parts.decide is not None:
        expected = calibration.histogram.expect(parts.decide)
        logger.info("expected, of all %d candidates of a row: %s", calibration.candidates, expected.sentence())


def _parsed(kind: type[T], option: str, text: str, form: str) -> T:
    """NAME=NUMBER, perhaps several with commas, as a dataclass of numbers by these names."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, float] = {}
    for setting in text.split(","):
        name, _, value = (piece.strip() for piece in setting.partition("="))
        name = name.replace("-", "_")
        try:
            if name not in names or name in values:
                raise ValueError(name)
            values[name] = float(value)
        except ValueError as error:
            raise InputError(f"{option} must be {form}, but is {text!r}.") from error
    return kind(**values)
