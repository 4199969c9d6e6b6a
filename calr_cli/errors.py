"""Every way a user's input can be wrong, as exceptions that print as one line per problem."""

from __future__ import annotations

from collections.abc import Sequence


class CalrError(Exception):
    """A problem the user can mend.

    Args:
        message: What is wrong and where, one line; or several such lines, one per problem.
        hint: What to do about it, one line; shown after the last problem.
    """

    def __init__(self, message: str | Sequence[str], hint: str = "") -> None:
        self.problems: tuple[str, ...] = (message,) if isinstance(message, str) else tuple(message)
        self.hint = hint
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """The text for the terminal, one line per problem."""
        if not self.hint:
            return list(self.problems)
        return [*self.problems[:-1], f"{self.problems[-1]}. {self.hint}"]


class ConfigError(CalrError):
    """A setting, flag or preset that cannot be used."""


class DataError(CalrError):
    """An image, dataset folder, manifest or label file that cannot be used."""


class WeightsError(CalrError):
    """Pretrained weights that are absent, damaged or of another network."""


class CheckpointError(CalrError):
    """A checkpoint or run folder that cannot be used."""


class TrainingError(CalrError):
    """Training that cannot go on: no clusters, one giant cluster, a loss that is not a number."""


class MemoryLimitError(CalrError):
    """A step that needs more memory than it may take."""


class WorkerError(CalrError):
    """A process of a run on several devices that ended before its work was done."""
