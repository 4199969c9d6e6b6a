from __future__ import annotations

from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calr_cli.errors import DataError
from calr_cli.report.retrieval import Retrieval
from calr_cli.report.thumbnails import SIDE, thumbnail
from calr_cli.report.tiles import changed_queries, ranked_list, telling_queries
from calr_cli.types import UNKNOWN_PID, Dataset, ImageSet, RetrievalMetrics


def retrieval(precision: list[float], nearest: list[list[int]]) -> Retrieval:
    first = np.where(np.isnan(precision), -1, 0)
    counted = int((first >= 0).sum())
    metrics = RetrievalMetrics(0.5, np.ones(1), counted, 0.5, np.array(precision), first)
    similarities = np.linspace(0.9, 0.1, np.size(nearest), dtype=np.float32).reshape(np.shape(nearest))
    nothing = np.zeros(0, np.int64)
    return Retrieval(
        metrics, np.array(nearest), similarities, np.zeros((1, 1)), nothing, nothing, np.zeros(0)
    )


def test_best_median_and_worst() -> None:
    found = retrieval([0.1, 0.9, np.nan, 0.5, 0.7, 0.3], [[0]] * 6)
    assert telling_queries(found, 1) == [("best", 1), ("median", 3), ("worst", 0)]
    two = [("best", 1), ("best", 4), ("median", 4), ("median", 3), ("worst", 5), ("worst", 0)]
    assert telling_queries(found, 9) == two
    assert telling_queries(found, 0) == []


def test_queries_that_changed() -> None:
    before = retrieval([0.1, 0.9, np.nan, 0.5], [[0]] * 4)
    after = retrieval([0.4, 0.2, np.nan, 0.5], [[0]] * 4)
    assert changed_queries(before, after, 2) == [("gained most", 0), ("lost most", 1)]


def test_each_image_found_is_judged_in_words_and_signs(tmp_path: Path) -> None:
    Image.new("RGB", (8, 16)).save(tmp_path / "a.png")
    query = ImageSet(tmp_path, ("a.png",), np.array([7]), np.array([0]), ("",))
    pids, camids = np.array([7, 3, 7, UNKNOWN_PID]), np.array([1, 0, 0, 1])
    gallery = ImageSet(tmp_path, ("a.png",) * 4, pids, camids, ("",) * 4)
    shown = ranked_list(retrieval([0.5], [[0, 1, 2, 3]]), Dataset("x", query, query, gallery), 0, "best")
    assert [(tile.kind, tile.sign) for tile in shown.found] == [
        ("right", "✓"),
        ("wrong", "✗"),
        ("own", "○"),
        ("own", "–"),
    ]
    assert (
        shown.found[0].alt == "Place 1: right, the same identity in another camera, camera 1, similarity 0.90"
    )
    assert shown.query.alt == "Query: identity 7, camera 0"


def test_thumbnails_are_small_and_keep_their_shape(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    address = thumbnail(tmp_path / "large.png")
    assert address.startswith("data:image/jpeg;base64,")
    assert len(address) < 12_000

    with Image.open(BytesIO(b64decode(address.partition(",")[2]))) as image:
        assert image.size == (SIDE // 2, SIDE)
    with pytest.raises(DataError, match=r"gone\.png: the image is gone"):
        thumbnail(tmp_path / "gone.png")
