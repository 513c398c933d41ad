"""How a run was trained and what it scored then: the typed content of a run's metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["RunMetrics", "TrainingRecord"]


@dataclass(frozen=True)
class TrainingRecord:
    """How a run was trained.

    steps: number of optimizer steps. seconds: of tokenising and all steps. loss: of the last step. dataset,
    dataset_fingerprint: name and content of the data set, "" where they are not known. interrupted: stopped before the last
    step. columns: what the source of the data set called its columns, see xmc.data.dataset.Dataset.source_columns.
    """

    steps: int
    seconds: float
    loss: float
    dataset: str = ""
    dataset_fingerprint: str = ""
    interrupted: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingRecord:
        """What `asdict` gives, with or without further keys. TypeError where steps, seconds or loss are missing."""
        known = {entry.name for entry in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True)
class RunMetrics:
    """What metrics.json holds.

    training: None for a run that was not trained by `xmc.train`. validation: metrics of the held-out queries by name, in
    percent; None where no queries were held out. sections: what others keep with a run, JSON values by the section's name.
    """

    training: TrainingRecord | None = None
    validation: Mapping[str, float] | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: "training" and "validation", where known, beside the further sections."""
        values: dict[str, Any] = {} if self.training is None else {"training": asdict(self.training)}
        if self.validation is not None:
            values["validation"] = dict(self.validation)
        return values | dict(self.sections)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunMetrics:
        """What `to_dict` gives. TypeError, ValueError or AttributeError for values of another form."""
        sections = dict(values)
        training, validation = sections.pop("training", None), sections.pop("validation", None)
        return cls(
            None if training is None else TrainingRecord.from_dict(training),
            None if validation is None else {name: float(value) for name, value in validation.items()},
            sections,
        )
