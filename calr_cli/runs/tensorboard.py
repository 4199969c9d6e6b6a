"""A run's figures as the curves of TensorBoard.

They follow from the rows of ``metrics.jsonl``: an event file gets each row when that file does, and a new one
gets all rows when a run goes on, so the two cannot disagree.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calr_cli.errors import ConfigError

_NAME = "events.out.tfevents."


def require_tensorboard() -> None:
    """Raise unless event files can be written.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    try:
        import tensorboard.compat.proto.event_pb2  # noqa: F401
    except ImportError:
        raise ConfigError(
            "the package tensorboard, which writes what TensorBoard shows, is not installed",
            "Install it with: pip install 'calr-cli[tensorboard]', or leave --tensorboard out "
            "(of a run begun with it, delete the folder tensorboard)",
        ) from None


def begin_events(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Begin a new event file in ``folder`` with the epochs in ``rows``; it counts in place of those before.

    These stay, because a TensorBoard that is open does not get over a file that is gone.

    Raises:
        ConfigError: tensorboard is not installed.
        OSError: The folder cannot be written.
    """
    require_tensorboard()
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    file = folder / f"{_NAME}{time.time_ns()}"
    beginning = [
        Event(wall_time=time.time(), file_version="brain.Event:2"),
        # Whoever reads the files in their order forgets the points of those before from step 0 on.
        Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START)),
    ]
    _append(file, [*beginning, *map(_event, rows)])


def append_event(folder: Path, row: Mapping[str, Any]) -> None:
    """Add an epoch to the event file in ``folder``.

    Raises:
        ConfigError: tensorboard is not installed.
        OSError: The folder cannot be written.
    """
    if file := max(folder.glob(f"{_NAME}*"), default=None):
        _append(file, [_event(row)])
    else:
        begin_events(folder, [row])


def _append(file: Path, events: Sequence[Any]) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    with file.open("ab") as opened:
        writer = RecordWriter(opened)
        for event in events:
            writer.write(event.SerializeToString())


def _event(row: Mapping[str, Any]) -> Any:
    """An epoch's numbers, each under its keys (``quality/clustered/after/pair_f``); steps count from 1."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    figures = {name: value for name, value in row.items() if name not in ("epoch", "camera")}
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _numbers(figures, "")]
    return Event(wall_time=time.time(), step=row["epoch"] + 1, summary=Summary(value=values))


def _numbers(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield prefix + name, value
