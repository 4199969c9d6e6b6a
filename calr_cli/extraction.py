"""Extracts the features of images with an encoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from calr_cli.data.augment import normalise
from calr_cli.data.loaders import PixelSource
from calr_cli.distributed import collectives
from calr_cli.events import Reporter
from calr_cli.models.encoder import Encoder
from calr_cli.models.folding import fold_batch_norms
from calr_cli.transfer import copied_ahead
from calr_cli.types import FloatArray


def extract_features(
    encoder: Encoder,
    pixels: PixelSource,
    *,
    batch_size: int,
    reporter: Reporter,
    title: str = "features",
) -> FloatArray:
    """Features of images in record order, with the evaluation transform.

    The function puts the encoder into evaluation mode and uses a copy of it with fewer layers
    (`models.folding`) on the device of its weights. With several ranks, each rank works on a contiguous part
    of the images, and rank 0 gets all features.

    Args:
        encoder: The network.
        pixels: Pixels of N images.
        batch_size: Images per forward pass.
        reporter: Receiver of the progress, which counts images.
        title: Title of the progress.

    Returns:
        (N, D) float32 unit rows; on every rank except 0 only the rows of its own part.

    Raises:
        DataError: An image cannot be read.
    """
    network = fold_batch_norms(encoder.eval())
    device = encoder.device
    ranks, rank = collectives.world_size(), collectives.rank()
    cuts = [len(pixels) * r // ranks for r in range(ranks + 1)]
    mine = np.arange(cuts[rank], cuts[rank + 1])
    features = torch.empty((len(mine), encoder.feature_dim), device=device)
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    blocks = copied_ahead(pixels.batches(batches, pin=device.type == "cuda"), device)
    done = 0
    with reporter.progress(title, len(mine), "images") as progress, torch.inference_mode():
        for block in blocks:
            count = len(block)
            if device.type == "cuda" and done:
                block = _filled_up(block, batch_size)
            features[done : done + count] = network(normalise(block, encoder.statistics))[:count]
            done += count
            progress.advance(count)
    return collectives.collect_rows(features.cpu().numpy(), np.diff(cuts).tolist())


def _filled_up(pixels: Tensor, count: int) -> Tensor:
    """``pixels`` (B, H, W, 3), then black images up to ``count``.

    For each new size of batch a GPU tries out its algorithms, which takes longer than computing black images.
    """
    return functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, count - len(pixels)))
