"""Sections that are chosen by their kind, from a registry that other packages may add to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from xmc.config.field_errors import FieldError
from xmc.registry import Registry, did_you_mean

__all__ = ["Family", "default_kinds", "family_of"]


class Family:
    """Marks a field that holds a section of a registered kind: `Annotated[EncoderConfig, Family(SECTIONS, "static")]`.

    A plain text names a kind with its defaults, and a mapping without `kind` is of the kind `default`.
    """

    def __init__(self, kinds: Registry[Any], default: str = "") -> None:
        """kinds: the class of each kind's section, by name."""
        self.kinds, self.default = kinds, default

    def class_of(self, value: Any) -> type[BaseModel] | None:
        """The class of the section that a value describes; None where it names no registered kind."""
        if isinstance(value, BaseModel):
            return type(value)
        kind = value.get("kind", self.default) if isinstance(value, Mapping) else value
        return self.kinds[kind] if isinstance(kind, str) and kind in self.kinds else None

    def __get_pydantic_core_schema__(self, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        def section(value: Any) -> Any:
            if isinstance(value, source):
                return value
            kind = self.class_of(value)
            if kind is None or isinstance(value, BaseModel):
                named = value.get("kind", value) if isinstance(value, Mapping) else value
                raise FieldError(f"must be one of {', '.join(self.kinds)}", did_you_mean(named, self.kinds), named)
            return kind.__pydantic_validator__.validate_python({"kind": value} if isinstance(value, str) else value)

        written = core_schema.plain_serializer_function_ser_schema(lambda value: value.model_dump(mode="json"))
        return core_schema.no_info_plain_validator_function(section, serialization=written)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        sections = [handler(section.__pydantic_core_schema__) for section in self.kinds.values()]
        return {"anyOf": [{"enum": list(self.kinds)}, *sections]}


def family_of(field: FieldInfo) -> Family | None:
    """The family of the section, or sections, that a field holds; None for other fields."""
    marks = list(field.metadata)
    for argument in get_args(field.annotation):
        marks.extend(getattr(argument, "__metadata__", ()))
    return next((mark for mark in marks if isinstance(mark, Family)), None)


def default_kinds(section: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """The dotted keys of sections that are chosen by their kind, inside of others too, and the kind where none is named."""
    found: dict[str, str] = {}
    for name, field in section.model_fields.items():
        if family_of(field) is not None:
            first = field.default[0] if isinstance(field.default, tuple) else field.default
            found[prefix + name] = first.kind
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= default_kinds(field.annotation, f"{prefix}{name}.")
    return found
