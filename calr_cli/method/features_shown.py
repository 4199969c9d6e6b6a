"""Features of a sample of images, for TensorBoard's projector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calr_cli.config.schema import Settings
from calr_cli.distributed import collectives
from calr_cli.events import Reporter
from calr_cli.method.build import build_extractor
from calr_cli.method.epochs import TrainingImages
from calr_cli.method.labels import EpochLabels
from calr_cli.models.encoder import Encoder
from calr_cli.runs.folder import RunFolder
from calr_cli.runs.projector import SAMPLE, write_projection


def show_features(
    settings: Settings,
    encoder: Encoder,
    data: TrainingImages,
    labels: EpochLabels | None,
    run: RunFolder,
    reporter: Reporter,
) -> None:
    """Features of a sample for TensorBoard, by the encoder as it is, with the labels that it gave last."""
    sample = np.arange(
        min(len(data.images), SAMPLE)
    )  # records are in the order of their digests: any of them
    some = data.subset(sample)
    features = build_extractor(settings, reporter)(encoder, some.pixels, title="features for TensorBoard")
    if collectives.is_main():
        columns: dict[str, Sequence[object]] = {
            "image": some.images.paths,
            "camera": list(some.images.camids),
        }
        if labels is not None:
            columns["cluster"] = list(labels.refined_labels[sample])
        if some.images.has_identities:
            columns["identity"] = list(some.images.pids)
        (block,) = some.pixels.batches([sample])
        write_projection(run.tensorboard, features, block.numpy(), columns)
