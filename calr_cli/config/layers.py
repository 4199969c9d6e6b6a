"""Reads one source of settings, a YAML file or ``--set`` texts, into flat values with their origin.

YAML values are read as text, and only the schema gives types. So ``1e-4`` and ``off`` mean the same in a
file, in ``--set`` and in a flag, whatever YAML 1.1 says.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from calr_cli.config.wording import LEAVES, SECTIONS, shown

NULLS = ("null", "~")


@dataclass(frozen=True)
class Given:
    """One value as the user gave it, and its origin."""

    value: Any
    origin: str


Layer = dict[str, Given]
"""Dotted key -> value, for the settings that one source gives."""


class TextLoader(yaml.BaseLoader):
    """Reads scalars as text, bare ``null`` as None; a key given twice is an error."""

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        """The text of a scalar; None for an unquoted ``null`` or ``~``, or an empty value."""
        text = super().construct_scalar(node)
        return None if node.style is None and text in ("", *NULLS) else text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping without equal keys, of which YAML would silently take the later."""
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{key.value}' given twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_file(path: Path, origin: str, problems: list[str]) -> Layer:
    """The settings in a YAML file; its problems are added to ``problems``."""
    try:
        return read_layer(path.read_text(encoding="utf-8"), origin, problems)
    except FileNotFoundError:
        problems.append(f"{origin}: no such file")
    except UnicodeDecodeError:
        problems.append(f"{origin}: not a text file in UTF-8")
    except OSError as error:
        problems.append(f"{origin}: cannot be read ({error.strerror})")
    return {}


def read_layer(text: str, origin: str, problems: list[str]) -> Layer:
    """The settings in a YAML text."""
    try:
        tree = yaml.load(text, Loader=TextLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        problems.append(f"{origin}{where}: not valid YAML: {reason}")
        return {}
    if not isinstance(tree, dict | None):
        problems.append(f"{origin}: not 'key: value' lines but {shown(tree)}")
        return {}
    return flattened(tree or {}, "", origin, problems)


def read_assignments(assignments: Sequence[str], problems: list[str]) -> Layer:
    """The settings in the texts of ``--set``."""
    layer: Layer = {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not (key and equals and text):
            problems.append(f"--set {shown(assignment)}: must be KEY=VALUE (VALUE null for none)")
            continue
        layer |= flattened({key: None if text in NULLS else text}, "", "--set", problems)
    return layer


def flattened(tree: Mapping[Any, Any], prefix: str, origin: str, problems: list[str]) -> Layer:
    """Dotted key -> value of every setting that the schema knows; other keys are added to ``problems``."""
    layer: Layer = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in LEAVES:
            layer[key] = Given(value, origin)
        elif key not in SECTIONS:
            guess = did_you_mean(nearest_keys(key)) or "; --print-config lists all"
            problems.append(f"unknown setting {shown(key)} ({origin}){guess}")
        elif isinstance(value, dict):
            layer |= flattened(value, f"{key}.", origin, problems)
        elif value is not None:
            problems.append(f"{key} = {shown(value)} ({origin}) is a section; give its settings, {key}.NAME")
    return layer


def nearest_keys(key: str) -> list[str]:
    """The settings that end in ``key`` (``lr``), or else the one with the most similar spelling."""
    ends = [leaf for leaf in LEAVES if leaf.endswith(f".{key}")]
    return ends or difflib.get_close_matches(key, [*LEAVES, *SECTIONS], n=1)


def did_you_mean(candidates: Sequence[str]) -> str:
    """The end of a message that offers ``candidates``; empty if there are none."""
    return f"; did you mean {' or '.join(candidates)}?" if candidates else ""
