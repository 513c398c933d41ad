"""The base of every section of the configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from xmc.config.mistakes import sentence
from xmc.errors import ConfigError

__all__ = ["KindSection", "Section", "plain_values"]

S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """Keys of the configuration that belong together; a docstring under each field says what it means.

    A section is checked when it is made, in Python as from YAML: an unknown key, a wrong type or a value out of bounds is a
    ConfigError that names the key, the value and what is wanted. Whole numbers are not taken from floats or truth values, and
    numbers are finite; lists are taken for tuples, and texts such as "5e-3", which YAML 1.1 reads as texts, for floats.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    short: ClassVar[str] = ""
    """The field that a plain value in place of the section stands for; "" where there is none."""

    def __init__(self, **values: Any) -> None:
        """Raises ConfigError for a value that does not fit."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(sentence(error, type(self), values)) from None

    # Sections inside of a section are then made by the outer one, whose error knows the whole dotted key.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def from_mapping(cls: type[S], values: Mapping[str, Any], *, source: str = "") -> S:
        """Build from nested plain values; ConfigError names `source`, such as a file, and the key."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(sentence(error, cls, values, source)) from None

    def to_mapping(self) -> dict[str, Any]:
        """Nested plain values, as `from_mapping` takes them."""
        return self.model_dump(mode="json")

    @classmethod
    def of(cls: type[S], section: Section) -> S | None:
        """The section where it is of this class, else None: `TransformerConfig.of(config.encoder)`."""
        return section if isinstance(section, cls) else None

    @classmethod
    def require(cls: type[S], section: Section) -> S:
        """The section, which must be of this class; ConfigError where it is not."""
        if not isinstance(section, cls):
            raise ConfigError(f"A {cls.__name__} is needed here, but the configuration has a {type(section).__name__}.")
        return section

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, values: Any) -> Any:
        """Values as YAML gives them: lists for tuples, texts for floats, and a plain value for the field `short`."""
        if cls.short and not isinstance(values, (Mapping, Section)):
            values = {cls.short: values}
        if not isinstance(values, Mapping):
            return values
        return {
            key: _from_yaml(cls.model_fields[key].annotation, value) if key in cls.model_fields else value
            for key, value in values.items()
        }


class KindSection(Section):
    """A section of a family, which has one class for each kind; see xmc.config.kinds."""

    kind: str
    """Name of the kind."""


def plain_values(section: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """The dotted keys of sections that a plain value may stand for, inside of others too, and the key that it is."""
    found: dict[str, str] = {}
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            if inner.short:
                found[prefix + name] = inner.short
            found |= plain_values(inner, f"{prefix}{name}.")
    return found


def _from_yaml(annotation: Any, value: Any) -> Any:
    if get_origin(annotation) is tuple and isinstance(value, (list, tuple)):
        return tuple(_from_yaml(get_args(annotation)[0], item) for item in value)
    takes = {annotation, *get_args(annotation)}
    if float in takes and str not in takes and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value
