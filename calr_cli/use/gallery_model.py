"""A gallery and the model that made it: in no other's features it can be searched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from calr_cli.errors import ConfigError, DataError
from calr_cli.types import FloatArray
from calr_cli.use.embedding import Embedder, Precision
from calr_cli.use.feature_files import FeatureFile
from calr_cli.use.gallery_file import GalleryFile


def require_model(gallery: GalleryFile, embedder: Embedder) -> Embedder:
    """The model in the gallery's precision.

    Raises:
        DataError: The gallery was made by another model, or in a precision that the device cannot compute in.
    """
    maker = gallery.maker
    if maker.key != embedder.key:
        raise DataError(
            f"{gallery.path} was made with another model, or with another input size",
            f"Give --resume with the model that made it; it was {maker.path}",
        )
    precision: Precision = "bf16" if maker.precision == "bf16" else "fp32"
    try:
        return embedder.computing_in(precision)
    except ConfigError:
        raise DataError(
            f"{gallery.path} was made in {precision}, which {embedder.encoder.device} cannot compute in",
            "Give --device cpu",
        ) from None


@dataclass(frozen=True)
class GalleryFeatures(FeatureFile):
    """A gallery as a file of features, for `calr search`.

    Attributes:
        cameras: Of the images.
    """

    cameras: tuple[str, ...] = ()

    def blocks(self, rows: int) -> Iterator[FloatArray]:
        """See `FeatureFile.blocks`.

        Raises:
            DataError: Damaged, or changed since the paths were read.
        """
        with GalleryFile(self.path) as file:
            if tuple(file.images()[0]) != self.paths:
                raise DataError(f"{self.path} was changed while it was searched", "Search again")
            yield from file.blocks(rows)


def open_gallery_features(path: Path, embedder: Embedder) -> GalleryFeatures:
    """The images of a gallery.

    Raises:
        DataError: Not a gallery, one of another model, or one without images.
    """
    with GalleryFile(path) as file:
        require_model(file, embedder)
        paths, maker, cameras = tuple(file.images()[0]), file.maker, file.cameras()
    if not paths:
        raise DataError(f"{path} has no image", f"calr gallery add {path} adds some")
    return GalleryFeatures(path, paths, maker.dim, maker.key, maker.precision, tuple(cameras))
