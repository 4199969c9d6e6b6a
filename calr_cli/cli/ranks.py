"""Being one of the processes that torchrun started: the first of them alone makes folders and prints.

Without torchrun the command is that first process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import typer

from calr_cli.distributed.place import is_first

T = TypeVar("T")


def is_main() -> bool:
    """Whether this is the first process, or the only one."""
    return is_first()


def on_main(work: Callable[[], T]) -> T:
    """What ``work`` gives in the first process, in every process; the others do not do it.

    Raises:
        Exception: What ``work`` raises, in the first process.
        typer.Exit: In the others, which have nothing to add.
    """
    from calr_cli.distributed.collectives import broadcast

    if not is_main():
        done: list[T] | None = broadcast(None)
        if done is None:
            raise typer.Exit(1)
        return done[0]
    try:
        result = work()
    except BaseException:
        broadcast(None)
        raise
    broadcast([result])
    return result
