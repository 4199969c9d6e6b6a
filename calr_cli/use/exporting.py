"""A trained model for programs without torch, checked against itself on real images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calr_cli import __version__
from calr_cli.data.augment import IMAGENET_MEAN, IMAGENET_STD
from calr_cli.data.images import open_image, resized
from calr_cli.errors import CalrError, CheckpointError, DataError
from calr_cli.evaluation.calibration import EVEN_ODDS
from calr_cli.events import Reporter
from calr_cli.files import atomic_write
from calr_cli.prepare.prepared import load_dataset
from calr_cli.use.embedding import Embedder
from calr_cli.use.image_lists import list_images
from calr_cli.use.onnx_file import INPUT, OPSET, OUTPUT, open_onnx, write_onnx
from calr_cli.use.trackers import Tracker, resized_there
from calr_cli.use.verdict import possible

TOLERANCE = 1e-4
"""How far a number of a feature may be from that of PyTorch."""

COMPARED = 32
"""Images that both compute."""

BATCHES = (1, 2)
"""Sizes of the first batches; the remaining images are one more."""


def export_onnx(
    embedder: Embedder,
    images: Sequence[str],
    output: Path,
    reporter: Reporter,
    tracker: Tracker | None = None,
) -> dict[str, Any]:
    """Write ``output``, if it gives the features that the model gives.

    Args:
        embedder: The model, on the CPU.
        images: See `list_images`; none: those of the dataset that it was trained on, query images first.
        output: An ``.onnx`` file; one that is there is replaced.
        reporter: Hears what is done.
        tracker: Whose input the file takes; None: images as calr reads them.

    Returns:
        What ``calr export --json`` prints.

    Raises:
        CheckpointError: A number differs by more than `TOLERANCE`.
        DataError: There is no image to compare on.
        OSError: The file cannot be written.
    """
    calibration = embedder.calibration
    if calibration is not None:
        possible(calibration.similarity_at(EVEN_ODDS), calibration, EVEN_ODDS, reporter)
    embedder = embedder.computing_in("fp32")  # as the file does, also on CPUs where calr takes bf16
    encoder, data = embedder.encoder, embedder.settings.data
    paths, where = _some_images(embedder, images, reporter)
    try:
        features, _ = embedder.embed(paths, "features by PyTorch", reporter)
    except DataError as error:
        raise error if images else _none_to_compare(error) from None
    pictures = [open_image(Path(path)) for path in features.paths]
    pixels = np.stack([resized(picture, data.height, data.width) for picture in pictures])
    feed = tracker.feed if tracker else np.asarray
    # Again from the beginning where they are too few for more than one size of batch.
    order = np.arange(max(len(pixels), sum(BATCHES))) % len(pixels)
    batches = [batch for batch in np.split(order, np.cumsum(BATCHES)) if len(batch)]
    with atomic_write(output) as temporary:
        with reporter.progress("writing and comparing", 0):
            facts = describe(embedder, tracker)
            write_onnx(temporary, encoder, data.height, data.width, facts, tracker)
            run = open_onnx(temporary)
            rows = np.concatenate([run(feed(pixels[batch])) for batch in batches])
        difference = float(np.abs(rows - features.rows[order]).max())
        if not difference <= TOLERANCE:  # nor is one that is not a number
            raise CheckpointError(
                f"the exported model is another: its features differ by {difference:.1e}, the limit is "
                f"{TOLERANCE:.0e}; {output} is not written",
                "Try other versions of torch and onnxruntime, and report this one",
            )
    result = {
        "output": str(output),
        "bytes": output.stat().st_size,
        "opset": OPSET,
        "height": data.height,
        "width": data.width,
        "dim": encoder.feature_dim,
        "images": len(pixels),
        "images_from": where,
        "batch_sizes": [len(batch) for batch in batches],
        "largest_difference": difference,
    }
    if tracker is not None:
        there = np.stack([resized_there(picture, data.height, data.width) for picture in pictures])
        cosines = np.einsum("nd,nd->n", run(feed(there)), features.rows)
        threshold = None if calibration is None else calibration.similarity_at(EVEN_ODDS)
        result |= {
            "for": tracker.name,
            "resize_cosine": {"mean": float(cosines.mean()), "lowest": float(cosines.min())},
            "there": tracker.how(output.absolute(), data.height, data.width, encoder.feature_dim, threshold),
        }
    return result


def describe(embedder: Embedder, tracker: Tracker | None = None) -> dict[str, str]:
    """What the file says about itself: text as it is, all else as JSON."""
    encoder, data, calibration = embedder.encoder, embedder.settings.data, embedder.calibration
    shape = f"(N, {data.height}, {data.width}, 3) uint8 RGB; mean and std are taken out inside"
    resize = "Pillow's BICUBIC (antialiased) to width x height, whatever the image's proportions"
    if tracker is not None:
        shape = f"(N, 3, {data.height}, {data.width}) float32, {tracker.takes}"
        resize = f"as {tracker.name} does; calr: {resize}"
    facts: dict[str, Any] = {
        "calr_version": __version__,
        "arch": encoder.arch,
        "pooling": encoder.pooling_name,
        "dataset": embedder.dataset or "not known",
        "opset": OPSET,
        "height": data.height,
        "width": data.width,
        "resize": resize,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "input": f"{INPUT}: {shape}",
        "output": f"{OUTPUT}: (N, {encoder.feature_dim}) float32",
        "feature_dim": encoder.feature_dim,
        "similarity": "inner product of unit rows",
    }
    if tracker is not None:
        facts["for"] = tracker.name
    if calibration is not None:
        facts |= {
            "threshold": calibration.similarity_at(EVEN_ODDS),
            "calibration_slope": calibration.slope,
            "calibration_intercept": calibration.intercept,
            "calibration": calibration.origin,
        }
    return {
        name: fact if isinstance(fact, str) else json.dumps(fact, allow_nan=False)
        for name, fact in facts.items()
    }


def _some_images(embedder: Embedder, given: Sequence[str], reporter: Reporter) -> tuple[list[str], str]:
    """Up to `COMPARED` paths, from all over the images there are, and where they are from."""
    if given:
        paths, where = list_images(given, reporter), "--images"
    elif embedder.dataset is None:
        raise DataError("no images to compare on: the model file names no dataset", _GIVE_IMAGES)
    else:
        try:
            dataset = load_dataset(embedder.dataset, None, reporter)
        except (CalrError, OSError) as error:  # to prepare it is no help on the machine that uses the model
            raise _none_to_compare(error) from None
        splits = {"query": dataset.query, "gallery": dataset.gallery, "train": dataset.train}
        split, found = next((split, found) for split, found in splits.items() if len(found))
        paths, where = [str(found.root / path) for path in found.paths], f"{dataset.name}, {split}"
    chosen = np.linspace(0, len(paths) - 1, min(COMPARED, len(paths))).round().astype(int)
    return [paths[place] for place in chosen], where


def _none_to_compare(error: CalrError | OSError) -> DataError:
    lines = error.problems if isinstance(error, CalrError) else (str(error),)
    return DataError([f"no images to compare on: {line}" for line in lines], _GIVE_IMAGES)


_GIVE_IMAGES = "Give photographs of your own: --images DIR"
