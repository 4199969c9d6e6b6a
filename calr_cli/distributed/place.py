"""What a launcher, torchrun or a cluster's, has told this process of its place among others."""

from __future__ import annotations

import os
from dataclasses import dataclass

from calr_cli.errors import ConfigError

REMEDY = "Start several processes with torchrun, or unset WORLD_SIZE, RANK and LOCAL_RANK"


@dataclass(frozen=True)
class Place:
    """One of several processes.

    Attributes:
        rank: Its number among all.
        world_size: How many there are.
        local_rank: Its number among those of its machine.
        here: How many of them its machine has; None if the launcher does not say.
    """

    rank: int
    world_size: int
    local_rank: int
    here: int | None


def told_place() -> Place | None:
    """The place of this process; None if no launcher has started it.

    Without ``WORLD_SIZE`` there was none, and what another command left of the variables counts for nothing.

    Raises:
        ConfigError: The variables make no sense together.
    """
    if not os.environ.get("WORLD_SIZE"):
        return None
    world_size, rank, local_rank = _number("WORLD_SIZE", 1), _number("RANK", 0), _number("LOCAL_RANK", 0)
    says = os.environ.get("LOCAL_WORLD_SIZE") or world_size == 1
    here = _number("LOCAL_WORLD_SIZE", 1) if says else None
    for name, number, size, of in (
        ("RANK", rank, world_size, "WORLD_SIZE"),
        ("LOCAL_RANK", local_rank, world_size, "WORLD_SIZE"),
        ("LOCAL_RANK", local_rank, here, "LOCAL_WORLD_SIZE"),
    ):
        if size is not None and number >= size:
            raise ConfigError(f"{name} is {number} in the environment, and {of} {size}", REMEDY)
    return Place(rank, world_size, local_rank, here)


def is_first() -> bool:
    """Whether this is the first process, or the only one; whatever the variables say otherwise."""
    return os.environ.get("WORLD_SIZE", "") in ("", "1") or os.environ.get("RANK", "0") == "0"


def is_number(text: str) -> bool:
    """Whether ``text`` is digits of ASCII and nothing else; ``int`` takes signs and other scripts too."""
    return text.isascii() and text.isdecimal()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not is_number(text):
        raise ConfigError(f"{name} is {text!r} in the environment, not a number", REMEDY)
    return int(text)
