"""What every command refuses to be told: nothing where something belongs, or two values where one counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer
from typer.core import TyperCommand


class Command(TyperCommand):
    """A command that refuses what Typer would take without a word.

    An empty text is what a shell makes of a variable that is not set; as a path it would mean the current
    folder. Of an option given twice Typer keeps the last value.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See Typer; ends with one line per problem."""
        if args and not ctx.resilient_parsing:
            given, _, order = self.make_parser(ctx).parse_args(args=list(args))
            if lines := [*_empty(order, given), *_repeated(order)]:
                for line in lines:
                    typer.echo(f"error: {line}", err=True)
                raise typer.Exit(1)
        return super().parse_args(ctx, args)


def _empty(order: list[Any], given: dict[str, Any]) -> list[str]:
    """A line for each parameter of which a value is empty."""
    lines = []
    for parameter in dict.fromkeys(order):
        values = given.get(parameter.name)
        if "" in (values if isinstance(values, list | tuple) else [values]):
            lines.append(f"{_name(parameter)} is empty. Is a variable of the shell not set?")
    return lines


def _repeated(order: list[Any]) -> list[str]:
    """A line for each option that takes one value and was given more; a switch may be repeated."""
    return [
        f"{_name(parameter)} is given {'twice' if count == 2 else f'{count} times'}. Give it once"
        for parameter, count in Counter(order).items()
        if count > 1 and not parameter.multiple and not getattr(parameter, "is_flag", False)
    ]


def _name(parameter: Any) -> str:
    """As the user types it: the long name of an option, what an argument is called in ``--help``."""
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(parameter.metavar or parameter.name.upper())
