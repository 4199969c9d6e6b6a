"""Fills a template in: the one place that says how pages are rendered."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from calr_cli.report.missing import Missing


def render(template: str, **content: Any) -> str:
    """The text of a page: inserted text is escaped, a missing name is an error.

    Args:
        template: Name of a file in ``report/templates``.
        **content: What the template inserts.
    """
    environment = Environment(
        loader=PackageLoader("calr_cli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["missing"] = lambda value: isinstance(value, Missing)
    return environment.get_template(template).render(content)


def render_as_utf8(template: str, **content: Any) -> str:
    """`render`, with question marks in place of what UTF-8 cannot write: file names need not be text."""
    return render(template, **content).encode("utf-8", "replace").decode("utf-8")
