"""What the similarities of a model mean, learnt from identities, or from clusters where there are none."""

from __future__ import annotations

import numpy as np

from calr_cli.config.schema import Settings
from calr_cli.distributed import collectives
from calr_cli.errors import DataError
from calr_cli.evaluation.calibration import Calibration, fit_calibration
from calr_cli.events import Reporter
from calr_cli.method.build import build_extractor, build_pixels
from calr_cli.method.clusters import build_clustering
from calr_cli.method.inter import global_clusters
from calr_cli.models.encoder import Encoder
from calr_cli.types import Dataset, FloatArray


def calibrate(q_features: FloatArray, g_features: FloatArray, dataset: Dataset) -> Calibration:
    """From the identities of query and gallery; see `fit_calibration`.

    Raises:
        DataError: Too few pairs, or similarities that say nothing of identities.
    """
    query, gallery = dataset.query, dataset.gallery
    truth = (query.pids, gallery.pids, query.camids, gallery.camids)
    return fit_calibration(q_features, g_features, *truth, source="identities", dataset=dataset.name)


def calibrate_by_clusters(
    settings: Settings, encoder: Encoder, dataset: Dataset, reporter: Reporter
) -> Calibration:
    """Without identities: from global clusters of the training images, as stage 2 makes them.

    Two images of a cluster are taken to show the same, outliers are left out. Clusters are made of the very
    similarities that are judged by them, so the result is too sure of itself; its reliability is measured
    against other clusters, not against the truth.

    Raises:
        DataError: An image that cannot be read, or too few clusters.
        ConfigError: The settings cluster by what is not installed.
    """
    clustering, images = build_clustering(settings, reporter), dataset.train
    extract = build_extractor(settings, reporter)
    features = extract(encoder, build_pixels(settings, images, reporter), title="training images")
    device = encoder.device

    def fit() -> Calibration:
        labels, _, _ = global_clusters(settings, features, images.camids, device, reporter)
        if labels.max() < 1:
            raise DataError(
                f"the training images of {dataset.name} form {labels.max() + 1} clusters: nothing to "
                "calibrate on",
                clustering.more_links.capitalize(),
            )
        # One camera sees both images of every pair: only an image and itself are left out then.
        several = len(np.unique(images.camids)) > 1
        camids = images.camids if several else np.arange(len(images))
        pairs = (labels, labels, camids, camids)
        return fit_calibration(features, features, *pairs, source="clusters", dataset=dataset.name)

    return collectives.made_by_main(fit)
