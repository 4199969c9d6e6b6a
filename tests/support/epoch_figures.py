"""Figures of epochs that no training made."""

from __future__ import annotations

from typing import Any

from calr_cli.figures import InterEpoch, IntraEpoch, Seconds

SECONDS = Seconds(1.0, 2.0, 3.0)


def inter_epoch(epoch: int, **changes: Any) -> InterEpoch:
    """An epoch of stage 2."""
    figures: dict[str, Any] = {
        "images": 48,
        "clusters": 8,
        "outliers": 3,
        "discarded": 2,
        "without_pivot": 1,
        "zero_weight_clusters": None,
        "batch": 8,
        "loss": 1.5,
        "camera_loss": None,
        "criterion": 0.25,
        "seconds": SECONDS,
    }
    return InterEpoch(epoch=epoch, **{**figures, **changes})


def intra_epoch(camera: int, epoch: int) -> IntraEpoch:
    """An epoch of stage 1 in one camera."""
    return IntraEpoch(
        camera, epoch, images=16, clusters=3, batch=8, silhouette=0.125, loss=0.5, seconds=SECONDS
    )
