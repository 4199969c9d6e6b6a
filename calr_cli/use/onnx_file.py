"""A model as an ONNX file: what it computes, and how it is written and run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calr_cli.data.augment import IMAGENET_MEAN, IMAGENET_STD
from calr_cli.data.loaders import UInt8Array
from calr_cli.errors import ConfigError
from calr_cli.models.encoder import Encoder
from calr_cli.types import FloatArray
from calr_cli.use.trackers import BYTES, Tracker

OPSET = 18
"""Of the operators, from December 2022: the one that torch's exporter writes without converting."""

INPUT, OUTPUT = "images", "features"

EXPORTER: dict[str, Any] = (
    {"dynamo": True, "dynamic_shapes": {INPUT: {0: torch.export.Dim("N")}}}
    if torch.__version__ >= (2, 9)  # type: ignore[operator]  # TorchVersion compares with tuples
    else {"dynamo": False, "dynamic_axes": {INPUT: {0: "N"}, OUTPUT: {0: "N"}}}
)
"""The default of each version: through torch.export, which in 2.5 still fails at batch norms, or, before 2.9,
through TorchScript, which is deprecated since then."""


def require_onnx() -> None:
    """Raise unless files can be written and run; to be called before a model is loaded.

    Raises:
        ConfigError: A package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--format onnx: {error.name} is not installed", "Install it with: pip install 'calr-cli[onnx]'"
        ) from None


class PixelEncoder(nn.Module):
    """What the file computes: `normalise` and `Encoder`, without autocast and without computing shapes.

    Args:
        encoder: In evaluation mode, on the CPU.
        tracker: Whose input the file takes; None: images as calr reads them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, tracker: Tracker | None = None) -> None:
        super().__init__()
        self.backbone, self.pooling, self.neck = encoder.backbone, encoder.pooling, encoder.neck
        self.channels_last = tracker is None
        outside_mean, outside_std = BYTES if tracker is None else (tracker.mean, tracker.std)
        mean = (torch.tensor(IMAGENET_MEAN) - torch.tensor(outside_mean)) / torch.tensor(outside_std)
        std = torch.tensor(IMAGENET_STD) / torch.tensor(outside_std)
        self.normalised_outside = not mean.any() and bool((std == 1).all())
        shape = (3,) if self.channels_last else (3, 1, 1)
        self.register_buffer("mean", mean.view(shape))
        self.register_buffer("std", std.view(shape))

    def forward(self, images: Tensor) -> Tensor:
        """Encode images to unit-length features (N, D).

        Args:
            images: (N, H, W, 3) uint8 RGB, or (N, 3, H, W) float32 as a tracker feeds them.
        """
        normalised = images.float()
        if not self.normalised_outside:
            normalised = (normalised - self.mean) / self.std
        if self.channels_last:
            normalised = normalised.permute(0, 3, 1, 2)
        rows: Tensor = self.neck(self.pooling(self.backbone(normalised)))
        lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return rows / lengths.clamp(min=1e-12)


def write_onnx(
    path: Path,
    encoder: Encoder,
    height: int,
    width: int,
    metadata: Mapping[str, str],
    tracker: Tracker | None = None,
) -> None:
    """Write the encoder, with any number of images per batch, and what is to be known of it.

    Args:
        path: The file, in one piece.
        encoder: In evaluation mode, on the CPU.
        height: Of the images, pixels.
        width: Of the images, pixels.
        metadata: Of the file.
        tracker: Whose input the file takes; None: images as calr reads them.

    Raises:
        OSError: The file cannot be written.
    """
    import onnx

    images = (
        torch.zeros((2, height, width, 3), dtype=torch.uint8)
        if tracker is None
        else torch.zeros((2, 3, height, width))
    )
    with _silent_exporter():
        torch.onnx.export(
            PixelEncoder(encoder, tracker).eval(),
            (images,),
            path,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            **EXPORTER,
        )
    model = onnx.load(path)
    # The exporter notes names and source lines, with the folders of this machine, all over the file.
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (model, graph, *graph.node, *values):
        del part.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)  # for older runtimes
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def open_onnx(path: Path) -> Callable[[UInt8Array | FloatArray], FloatArray]:
    """The function in a file, a batch of its input to features (N, D), run by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # left to itself, it takes all and pins them
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: UInt8Array | FloatArray) -> FloatArray:
        features: FloatArray = session.run([OUTPUT], {INPUT: images})[0]
        return features

    return run


@contextmanager
def _silent_exporter() -> Iterator[None]:
    """Within, nothing is told of torchvision's operators (2.9), nor of how instance norms are traced."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            if not EXPORTER["dynamo"]:
                warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
