"""The model of the commands that use one on any images: ``embed``, ``search``, ``compare``, ``export``."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from calr_cli.cli import completion
from calr_cli.cli.options import SettingFlags
from calr_cli.errors import ConfigError
from calr_cli.events import Reporter

if TYPE_CHECKING:
    from calr_cli.evaluation.calibration import Calibration
    from calr_cli.use.embedding import Embedder

Resume = Annotated[
    str,
    typer.Option(
        "--resume",
        metavar="FILE",
        help="model file, of calr or of another program; a bare name is looked for in the newest "
        "finished run too",
        autocompletion=completion.models,
    ),
]
Threshold = Annotated[
    str | None,
    typer.Option(
        "--threshold",
        metavar="VALUE",
        help="from where on two images show the same: a similarity (0.6) or, with a calibrated model, a "
        "probability (90%); default with a calibrated model: 50%",
    ),
]


def open_trained(resume: str, flags: SettingFlags, device: str | None, reporter: Reporter) -> Embedder:
    """The model that a command's flags name, on its device.

    Raises:
        CheckpointError: No such file, no network that calr recognises, or a flag that contradicts it.
        ConfigError: A wrong setting or device.
    """
    from calr_cli.config.layers import Given
    from calr_cli.distributed.devices import choose_devices
    from calr_cli.runs.find import find_model
    from calr_cli.use.embedding import open_embedder

    path = find_model(resume, None)
    reporter.note(f"model: {path}")
    given = {key: Given(value, flag) for key, (flag, value) in flags.items()}
    return open_embedder(path, choose_devices(None, device, None, reporter)[0], given, reporter)


def check_pattern(pattern: str | None, per_camera: bool) -> None:
    """Raise if the cameras that a pattern says are of no use.

    Raises:
        ConfigError: It is given without ``--per-camera``.
    """
    if pattern is not None and not per_camera:
        raise ConfigError("--pattern is for --per-camera, which is not given")


def uncalibrated(embedder: Embedder, reporter: Reporter) -> Embedder:
    """The model without its calibration, which is of features that are not standardised."""
    if embedder.calibration is not None:
        reporter.note("--per-camera: similarities only, a model is calibrated without it")
    return replace(embedder, calibration=None)


def similarity_threshold(
    text: str | None, calibration: Calibration | None, prior: float, resume: str
) -> float | None:
    """The similarity that ``--threshold`` means; None: no threshold.

    Raises:
        ConfigError: Neither a similarity nor a probability, or a probability without a calibration.
    """
    if text is None:
        return None if calibration is None else calibration.similarity_at(0.5, prior)
    is_probability = text.endswith("%")
    try:
        value = float(text.removesuffix("%")) / (100 if is_probability else 1)
    except ValueError:
        value = float("nan")
    low, high = (0, 1) if is_probability else (-1, 1)
    if not (low < value < high or (value in (low, high) and not is_probability)):
        raise ConfigError(
            f"--threshold {text} is neither a similarity from -1 to 1 nor a probability such as 90%"
        )
    if not is_probability:
        return value
    if calibration is None:
        raise ConfigError(
            f"--threshold {text}: this model is not calibrated, it has no probabilities",
            f"Give a similarity such as 0.6, or calibrate it: {calibrate_words(resume)}",
        )
    return calibration.similarity_at(value, prior)


def tell_calibration(
    calibration: Calibration | None, prior: float | None, resume: str, reporter: Reporter
) -> None:
    """One line: what the probabilities rest on, or why there are none."""
    if calibration is None:
        reporter.note(
            f"this model is not calibrated: similarities only. To calibrate it: {calibrate_words(resume)}"
        )
        return
    assert prior is not None
    before = f"before looking, two images show the same with {100 * prior:.2g} %"
    reporter.note(f"probabilities: {calibration.origin}; {before}")


def calibrate_words(resume: str) -> str:
    """The command that calibrates the model."""
    return f"calr evaluate --calibrate --resume {shlex.quote(resume)}"
