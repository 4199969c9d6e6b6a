"""How far what a model finds follows cameras, of a sample of images."""

from __future__ import annotations

import numpy as np
import torch

from calr_cli.config.schema import Settings
from calr_cli.errors import ConfigError
from calr_cli.evaluation.camera_bias import CameraBias, camera_bias
from calr_cli.events import SilentReporter
from calr_cli.method.build import search_neighbours
from calr_cli.method.inter import global_clusters
from calr_cli.training.reproducibility import keyed_rng
from calr_cli.types import FloatArray, IntArray

SAMPLE = 5000
"""Images looked at: more would take longer and hardly change the figures."""


def camera_following(
    settings: Settings,
    features: FloatArray,
    camids: IntArray,
    device: torch.device,
    labels: IntArray | None = None,
) -> CameraBias | None:
    """The camera bias of at most `SAMPLE` of the images; None if they are of one camera.

    Args:
        settings: Of neighbours and, without ``labels``, of clusters.
        features: (N, D) unit rows.
        camids: (N,).
        device: Where neighbours are searched.
        labels: (N,) clusters; None: those that stage 2 makes of the sample.

    Raises:
        DataError: A feature that is not a finite number.
        MemoryLimitError: Something does not fit into the memory allowed.
    """
    rng = keyed_rng(settings.seed, "camera bias")
    chosen = np.sort(rng.permutation(len(features))[:SAMPLE])
    features, camids, quiet = features[chosen], camids[chosen], SilentReporter()
    if len(np.unique(camids)) < 2:
        return None
    near = search_neighbours(settings, features, 2, device, quiet)
    if labels is not None:
        return camera_bias(near, camids, labels[chosen])
    try:
        return camera_bias(near, camids, global_clusters(settings, features, camids, device, quiet)[0])
    except ConfigError:  # Infomap is not installed
        return camera_bias(near, camids)
