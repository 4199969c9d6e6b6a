"""From images to features."""

from __future__ import annotations

import numpy as np
import torch

from calr_cli.data.augment import normalise
from calr_cli.data.loaders import pixel_batches
from calr_cli.events import Reporter
from calr_cli.models.encoder import Encoder
from calr_cli.types import FloatArray, ImageSet


def extract_features(
    encoder: Encoder,
    images: ImageSet,
    *,
    height: int,
    width: int,
    batch_size: int,
    workers: int,
    reporter: Reporter,
    title: str = "features",
) -> FloatArray:
    """Features of ``images`` in record order, with the evaluation transform.

    The encoder is put into evaluation mode and works where its weights are.

    Args:
        encoder: The network.
        images: N images.
        height: Of the network input.
        width: Of the network input.
        batch_size: Images per forward pass.
        workers: Threads that decode.
        reporter: Shown a progress in images.
        title: Of that progress.

    Returns:
        (N, D) float32 unit rows.

    Raises:
        DataError: An image that cannot be read.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    features = np.empty((len(images), encoder.feature_dim), np.float32)
    batches = [
        np.arange(start, min(start + batch_size, len(images))) for start in range(0, len(images), batch_size)
    ]
    pixels = pixel_batches(images, batches, height=height, width=width, workers=workers)
    with reporter.progress(title, len(images), "images") as progress, torch.inference_mode():
        for batch, block in zip(batches, pixels, strict=True):
            features[batch] = encoder(normalise(block.to(device))).cpu().numpy()
            progress.advance(len(batch))
    return features
