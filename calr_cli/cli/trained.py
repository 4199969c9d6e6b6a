"""The model of the commands that use one on any images: ``embed``, ``search``, ``compare``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calr_cli.cli import options
from calr_cli.cli.options import setting_flags
from calr_cli.errors import CheckpointError, ConfigError
from calr_cli.events import Reporter

if TYPE_CHECKING:
    from calr_cli.evaluation.calibration import Calibration
    from calr_cli.pipelines.embedding import Embedder
    from calr_cli.training.checkpoint import ModelCard

FROM_MODEL = ("arch", "pooling", "height", "width")
"""What a model file of calr says by itself."""

Resume = Annotated[
    str,
    typer.Option(
        "--resume",
        metavar="FILE",
        help="model file, of calr or of another program; a bare name is looked for in the newest "
        "finished run too",
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


def open_trained(params: Mapping[str, Any], reporter: Reporter) -> Embedder:
    """The model that a command's flags name, on its device.

    Raises:
        CheckpointError: No such file, no network that calr recognises, or a flag that contradicts it.
        ConfigError: A wrong setting or device.
    """
    from calr_cli.config.layers import Given
    from calr_cli.config.loading import validated
    from calr_cli.evaluation.calibration import Calibration
    from calr_cli.models.foreign import ForeignWeights, build_foreign, describe
    from calr_cli.pipelines.build import ready
    from calr_cli.pipelines.devices import choose_devices
    from calr_cli.pipelines.embedding import Embedder
    from calr_cli.pipelines.run_dir import find_model
    from calr_cli.training.checkpoint import open_model

    path = find_model(params["resume"], None)
    reporter.note(f"model: {path}")
    opened = open_model(path)
    given = {key: Given(value, flag) for key, (flag, value) in setting_flags(params, "evaluation").items()}
    if isinstance(opened, ForeignWeights):
        known = {"model.arch": opened.arch, "model.pooling": opened.pooling or "avg"}
    else:
        refuse_other_network(path, opened[1], params)
        known = {options.SETTING_FLAGS[name][0]: getattr(opened[1], name) for name in FROM_MODEL}
    settings = validated({key: Given(value, str(path)) for key, value in known.items()} | given, []).settings
    calibration = None
    if isinstance(opened, ForeignWeights):
        model, data = settings.model, settings.data
        described = describe(opened, model.arch, model.pooling)
        size = f"{data.height} x {data.width}"
        reporter.note(f"{described}; input {size} (--height, --width), which the file does not say")
        encoder = build_foreign(opened, model.arch, model.pooling, CheckpointError)
    else:
        encoder = opened[0]
        if opened[1].calibration is not None:
            try:
                calibration = Calibration.from_dict(opened[1].calibration)
            except (KeyError, TypeError):
                raise CheckpointError(
                    f"{path} has a calibration of another version of calr", "Calibrate it again"
                ) from None
    device = choose_devices(None, params["device"], None, reporter)[0]
    return Embedder(ready(settings, encoder, device), settings, calibration)


def refuse_other_network(path: Path, card: ModelCard, params: Mapping[str, Any]) -> None:
    """Nothing, if the flags say nothing else than the model file.

    Raises:
        CheckpointError: They do.
    """
    if differing := [
        f"{path} has {name} {getattr(card, name)}, not {params[name]}"
        for name in FROM_MODEL
        if params[name] not in (None, str(getattr(card, name)))
    ]:
        raise CheckpointError(differing, "Leave these flags out: the model knows them")


def similarity_threshold(text: str | None, calibration: Calibration | None, prior: float) -> float | None:
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
            "Give a similarity such as 0.6, or calibrate it: calr evaluate --calibrate --resume FILE",
        )
    return calibration.similarity_at(value, prior)


def tell_calibration(calibration: Calibration | None, prior: float | None, reporter: Reporter) -> None:
    """One line: what the probabilities rest on, or why there are none."""
    if calibration is None:
        reporter.note(
            "this model is not calibrated: similarities only. "
            "To calibrate it: calr evaluate --calibrate --resume FILE"
        )
        return
    assert prior is not None
    before = f"before looking, two images show the same with {100 * prior:.2g} %"
    reporter.note(f"probabilities: {calibration.origin}; {before}")
