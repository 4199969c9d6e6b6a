"""A reporter that remembers what it heard."""

from __future__ import annotations

from contextlib import AbstractContextManager

from calr_cli.events import Progress, SilentReporter


class Heard(SilentReporter):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.steps: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def progress(
        self, title: str, total: int, unit: str = "", done: int = 0
    ) -> AbstractContextManager[Progress]:
        self.steps.append(f"{title}: {total} {unit}")
        return super().progress(title, total, unit)
