"""The columns of the table that training shows, one row per epoch."""

from __future__ import annotations

from calr_cli.figures import EpochFigures, InterEpoch, IntraEpoch

INTRA = {
    "camera": 6,
    "epoch": 5,
    "images": 6,
    "clusters": 8,
    "silhouette": 10,
    "loss": 6,
    "pair F": 6,
    "seconds": 7,
}
"""Title of each column of stage 1, and its width."""

INTER = {
    "epoch": 5,
    "clusters": 8,
    "outliers": 8,
    "discarded": 9,
    "right": 5,
    "no pivot": 8,
    "loss": 6,
    "camera": 6,
    "pair F": 11,
    "extract": 7,
    "cluster": 7,
    "train s": 7,
}
"""The same of stage 2."""


def columns_of(row: EpochFigures) -> dict[str, int]:
    """The columns for this kind of row; the same object for the same kind."""
    return INTRA if isinstance(row, IntraEpoch) else INTER


def cells_of(row: EpochFigures) -> list[str]:
    """What stands in them. Epochs are counted from 0 in files, from 1 for people, as in "epoch 1/50"."""
    return _intra_cells(row) if isinstance(row, IntraEpoch) else _inter_cells(row)


def _intra_cells(row: IntraEpoch) -> list[str]:
    return [
        str(row.camera),
        str(row.epoch + 1),
        str(row.images),
        str(row.clusters),
        f"{row.silhouette:.4f}",
        f"{row.loss:.3f}",
        "-" if row.quality is None else f"{row.quality.pair_f:.3f}",
        f"{row.seconds.total:.1f}",
    ]


def _inter_cells(row: InterEpoch) -> list[str]:
    right, pair_f = None, "-"
    if row.quality is not None:
        on_clustered, right = row.quality.clustered, row.quality.discarded_right
        pair_f = f"{on_clustered.before.pair_f:.3f}>{on_clustered.after.pair_f:.3f}"
    return [
        str(row.epoch + 1),
        str(row.clusters),
        str(row.outliers),
        str(row.discarded),
        "-" if right is None else f"{100 * right:.0f}%",
        str(row.without_pivot),
        f"{row.loss:.3f}",
        "-" if row.camera_loss is None else f"{row.camera_loss:.3f}",
        pair_f,
        f"{row.seconds.extract:.1f}",
        f"{row.seconds.cluster:.1f}",
        f"{row.seconds.train:.1f}",
    ]
