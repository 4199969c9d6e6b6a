"""The type and range of each setting in words, for the documentation and the error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from calr_cli.config.schema import Settings

TYPE_WORDS = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    tuple[float, float, float]: "three numbers",
}


def walk(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field below ``section`` as (dotted key, field); a section comes before its fields."""
    for name, field in section.model_fields.items():
        yield prefix + name, field
        if is_section(field):
            yield from walk(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def is_section(field: FieldInfo) -> bool:
    """Whether the field is a group of settings and not a setting."""
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


LEAVES: dict[str, FieldInfo] = {key: field for key, field in walk(Settings) if not is_section(field)}
"""Dotted key -> field of every setting, in the order of the schema."""

SECTIONS: dict[str, FieldInfo] = {key: field for key, field in walk(Settings) if is_section(field)}
"""Dotted key -> field of every section, in the order of the schema."""


FOLLOWING = frozenset(key for key, field in LEAVES.items() if field.json_schema_extra == {"auto": True})
"""The settings that follow a user's own images."""


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The values from which a setting chooses; empty if it is not a choice."""
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def type_words(field: FieldInfo) -> str:
    """The type of a setting: ``whole number``, ``number or null``, ``choice``, ..."""
    if choices(field):
        return "choice"
    parts = get_args(field.annotation) or (field.annotation,)
    words = " or ".join(TYPE_WORDS[part] for part in parts if part is not NoneType)
    return f"{words} or null" if NoneType in parts else words


def range_words(field: FieldInfo) -> str:
    """The values a setting may take: ``from 1``, ``above 0, at most 1``, ``all, hard``; empty if any."""
    if options := choices(field):
        return ", ".join(options)
    limits: dict[str, Any] = {}
    for limit in field.metadata:
        limits |= {name: getattr(limit, name) for name in ("gt", "ge", "le", "lt") if hasattr(limit, name)}
    at_most = "to {}" if "ge" in limits else "at most {}"
    words = {"gt": "above {}", "ge": "from {}", "le": at_most, "lt": "below {}"}
    joint = " " if "ge" in limits else ", "
    return joint.join(words[name].format(limits[name]) for name in words if name in limits)


def expected(field: FieldInfo) -> str:
    """The text after "must be" in a message: ``a number above 0, or null``."""
    if choices(field):
        return f"one of {range_words(field)}"
    base, *null = type_words(field).split(" or null")
    article = "a " if base.endswith("number") else ""
    return f"{article}{base} {range_words(field)}".rstrip() + (", or null" if null else "")


def shown(value: Any) -> str:
    """A value as one writes it in YAML or on the command line, on one short line."""
    text = " ".join((value if isinstance(value, str) else json.dumps(value, default=str)).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
