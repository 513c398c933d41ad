"""What is wrong with a configuration, as one sentence that names the key, the value and what is wanted."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from xmc.config.field_errors import FieldError
from xmc.config.keys import NEW_KEYS, as_written
from xmc.config.kinds import family_of
from xmc.registry import did_you_mean, nearest

__all__ = ["bounds", "choices", "sentence", "type_name"]

OUT_OF_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


def sentence(error: ValidationError, section: type[BaseModel], values: Any, source: str = "") -> str:
    """The first mistake that pydantic found in the values for a section. source: what the values were read from."""
    details = error.errors(include_url=False)
    first = next((detail for detail in details if detail["type"] == "extra_forbidden"), details[0])
    key, owner, field = _place(section, values, first["loc"])
    value, kind = first["input"], first["type"]
    if kind == "extra_forbidden":
        return f"{source or section.__name__} has the unknown key {key!r}.{_of_unknown(key, owner)}"
    start = f"{source}: {key}" if source else key
    if kind == "missing":
        return f"{start} must be given: {(field.description if field else None) or 'it has no default'}"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        shown = value if cause.value is None else cause.value
        return f"{start} {cause.wanted}, but is {_shown(shown)}.{cause.hint}"
    wanted, hint = _wanted(first, field)
    return f"{start} must be {wanted}, but is {_shown(value)}.{hint}"


def bounds(field: FieldInfo, details: Mapping[str, Any] | None = None) -> str:
    """In what bounds a number must lie, such as "at least 1" or "a share in [0, 1)"; "" where there are none."""
    limits: dict[str, float] = dict(details or {})
    for item in field.metadata:
        for kind, name in ((Ge, "ge"), (Gt, "gt"), (Le, "le"), (Lt, "lt")):
            if isinstance(item, kind):
                limits[name] = getattr(item, name)
    low = next((limits[name] for name in ("ge", "gt") if name in limits), None)
    high = next((limits[name] for name in ("le", "lt") if name in limits), None)
    if low is not None and high is not None:
        opening, closing = "[" if "ge" in limits else "(", "]" if "le" in limits else ")"
        noun = "a share" if (low, high) == (0, 1) else "a number"
        return f"{noun} in {opening}{low:g}, {high:g}{closing}"
    if low is not None:
        return f"at least {low:g}" if "ge" in limits else f"greater than {low:g}"
    if high is not None:
        return f"at most {high:g}" if "le" in limits else f"below {high:g}"
    return ""


def choices(annotation: Any) -> Sequence[str]:
    """The values of a Literal, alone or together with None; empty for other types."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return next((found for found in map(choices, _without_none(annotation)) if found), [])


def type_name(annotation: Any) -> str:
    """What a message calls a type: "int", "int (at least 1)", "a list of numbers", "a section of keys"."""
    others = _without_none(annotation)
    if others:
        return " or ".join(map(type_name, others))
    if get_origin(annotation) is tuple:
        item = get_args(annotation)[0]
        item = get_args(item)[0] if hasattr(item, "__metadata__") else item
        return {str: "a list of texts", int: "a list of whole numbers", float: "a list of numbers"}.get(item, "a list")
    if names := choices(annotation):
        return "one of " + ", ".join(names) if len(names) > 1 else f'"{names[0]}"'
    if hasattr(annotation, "__metadata__"):
        limits = [bounds(item) for item in annotation.__metadata__ if isinstance(item, FieldInfo)]
        return " ".join([type_name(get_args(annotation)[0]), *(f"({limit})" for limit in limits if limit)])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a section of keys"
    return str(getattr(annotation, "__name__", annotation))


def _without_none(annotation: Any) -> list[Any]:
    if get_origin(annotation) not in (Union, types.UnionType):
        return []
    return [choice for choice in get_args(annotation) if choice is not type(None)]


def _wanted(detail: ErrorDetails, field: FieldInfo | None) -> tuple[str, str]:
    """What is wanted, as in "must be ...", and a hint."""
    if field is None:
        return f"another value ({detail['msg']})", ""
    if detail["type"] in OUT_OF_BOUNDS:
        return bounds(field, detail.get("ctx")), ""
    if detail["type"] == "string_too_short":
        return "a text that is not empty", ""
    if detail["type"] == "literal_error":
        names = choices(field.annotation)
        return "one of " + ", ".join(names), did_you_mean(detail["input"], names)
    return f"of type {name}" if (name := type_name(field.annotation)).isalpha() else name, ""


def _of_unknown(key: str, owner: type[BaseModel]) -> str:
    """What a key may have meant: one of the section, or one of an older version."""
    if key in NEW_KEYS:
        new = NEW_KEYS[key]
        return " It is gone; leave it out." if new is None else f" It is called {as_written(new)} now."
    inner = [as_written(new) for old, new in NEW_KEYS.items() if new is not None and old.startswith(key + ".")]
    if inner:
        return f" Its keys are called otherwise now: {', '.join(inner)}."
    before, _, name = key.rpartition(".")
    near = nearest(name, owner.model_fields)
    if near is not None:
        return f" Did you mean {(before + '.' if before else '') + near!r}?"
    return f" Known keys: {', '.join(owner.model_fields)}."


def _place(
    section: type[BaseModel], values: Any, location: tuple[int | str, ...]
) -> tuple[str, type[BaseModel], FieldInfo | None]:
    """The dotted key at a location, the class that it belongs to, and its field where it has one.

    A section in a list is named by its kind, as in negatives.bank.hard.
    """
    key: list[str] = []
    owner = section
    field: FieldInfo | None = None
    inside: type[BaseModel] | None = section
    for item in location:
        if isinstance(item, int):
            values = values[item] if isinstance(values, (list, tuple)) and item < len(values) else values
            family = None if field is None else family_of(field)
            found = None if family is None else family.class_of(values)
            if found is not None:
                key.append(str(found.model_fields["kind"].default))
                inside = found
            continue
        if inside is None:
            break  # the member of a union
        key.append(item)
        owner, field = inside, inside.model_fields.get(item)
        if field is None:
            break
        values = values.get(item) if isinstance(values, Mapping) else getattr(values, item, values)
        family = family_of(field)
        if family is not None and not isinstance(values, (list, tuple)):
            inside = family.class_of(values) or inside
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            inside = field.annotation
        elif family is None:
            inside = None
    return ".".join(key), owner, field


def _shown(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
