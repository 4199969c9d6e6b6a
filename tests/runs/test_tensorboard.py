"""Event files hold what ``metrics.jsonl`` holds, once, and writing them changes nothing else."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from calr_cli.data.local_labels import read_local_labels
from calr_cli.errors import ConfigError
from calr_cli.events import SilentReporter
from calr_cli.method.inter import train_inter
from calr_cli.method.intra import train_intra
from calr_cli.runs.find import create_run
from calr_cli.runs.folder import RunFolder
from calr_cli.runs.projector import write_projection
from calr_cli.types import Dataset
from tests.support.epoch_figures import inter_epoch
from tests.support.small import small_dataset, small_settings
from tests.support.stages import CPU, Notebook, assert_same_model, figures

pytestmark = pytest.mark.usefixtures("narrow")

SETTINGS = small_settings(evaluation={"monitor_every": 2})


def points(folder: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value of everything in the event files of a folder, each point once."""
    found = EventAccumulator(str(folder))
    found.Reload()
    curves = {tag: found.Scalars(tag) for tag in found.Tags()["scalars"]}
    for tag, events in curves.items():
        assert len({event.step for event in events}) == len(events), f"{tag} has a point twice"
    return {tag: {event.step: event.value for event in events} for tag, events in curves.items()}


def expected(rows: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """The same of rows, written out by hand: every number but those that say which row it is."""
    curves: dict[str, dict[int, float]] = {}

    def take(tree: Mapping[str, Any], path: tuple[str, ...], step: int) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                take(value, (*path, name), step)
            elif value is not None and (path or name not in ("epoch", "camera")):
                curves.setdefault("/".join((*path, name)), {})[step] = float(np.float32(value))

    for row in rows:
        take(row, (), row["epoch"] + 1)
    return curves


def begin(stage: str, folder: Path, tensorboard: bool) -> RunFolder:
    run = create_run(SETTINGS, stage, [CPU], folder)
    if tensorboard:
        for part in [run.path] if stage == "inter" else [run.path / f"cam{camid}" for camid in range(3)]:
            (part / "tensorboard").mkdir(parents=True)
    return run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALR_HOME", str(folder / "state"))
        return small_dataset(folder / "data")


def test_curves_are_the_rows_and_training_does_not_notice(tmp_path: Path, dataset: Dataset) -> None:
    plain = begin("intra", tmp_path / "plain" / "intra", False)
    train_intra(SETTINGS, dataset, plain, CPU, SilentReporter())
    curves = begin("intra", tmp_path / "curves" / "intra", True)
    with pytest.raises(KeyboardInterrupt):
        train_intra(SETTINGS, dataset, curves, CPU, Notebook(3))  # in the second camera
    train_intra(SETTINGS, dataset, curves, CPU, SilentReporter())
    assert plain.local_labels.read_bytes() == curves.local_labels.read_bytes()
    assert figures(plain) == figures(curves)
    for camid in range(3):
        camera = RunFolder(curves.path / f"cam{camid}")
        assert points(camera.tensorboard) == expected(camera.read_metrics())
        assert points(camera.tensorboard)["loss"].keys() == {1, 2}

    local_labels = read_local_labels(plain.local_labels, dataset.train)
    plain = begin("inter", tmp_path / "plain" / "inter", False)
    train_inter(SETTINGS, dataset, local_labels, plain, CPU, SilentReporter())
    assert not plain.tensorboard.exists()
    curves = begin("inter", tmp_path / "curves" / "inter", True)
    with pytest.raises(KeyboardInterrupt):
        train_inter(SETTINGS, dataset, local_labels, curves, CPU, Notebook(2))
    assert points(curves.tensorboard)["loss"].keys() == {1, 2}
    train_inter(SETTINGS, dataset, local_labels, curves, CPU, SilentReporter())
    assert len(list(curves.tensorboard.glob("events.*"))) == 2  # the points of the first count no more
    assert figures(plain) == figures(curves)
    for name in ("model.pth", "last.pth", "selected.pth"):
        assert_same_model(plain.path / name, curves.path / name)
    found = points(curves.tensorboard)
    assert found == expected(curves.read_metrics())
    assert found["loss"].keys() == {1, 2, 3}
    assert found["monitoring/mAP"].keys() == {2, 3}
    assert {"seconds/extract", "quality/clustered/after/pair_f", "criterion"} <= found.keys()
    assert not {"epoch", "camera"} & found.keys()
    assert_projection(curves.tensorboard, dataset)


def assert_projection(folder: Path, dataset: Dataset) -> None:
    """What the projector reads: its configuration, the points, their labels, an image for each."""
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (shown,) = config.embeddings
    features = np.loadtxt(folder / shown.tensor_path, delimiter="\t")
    assert features.shape == (48, 64)
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-3)
    with (folder / shown.metadata_path).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["image"] for row in rows] == list(dataset.train.paths)
    assert [int(row["camera"]) for row in rows] == dataset.train.camids.tolist()
    assert [int(row["identity"]) for row in rows] == dataset.train.pids.tolist()
    assert {int(row["cluster"]) for row in rows} > {0, 1}
    with Image.open(folder / shown.sprite.image_path) as sprite:
        assert sprite.size == tuple(7 * side for side in shown.sprite.single_image_dim)  # 48 in 7 x 7


def test_the_small_image_of_a_point_is_its_own(tmp_path: Path) -> None:
    pixels = np.zeros((5, 128, 64, 3), np.uint8)
    pixels[:, :, :, 0] = 50 * np.arange(5)[:, None, None]
    write_projection(tmp_path, np.eye(5, dtype=np.float32), pixels, {"a": range(5), "b": range(5)})
    with Image.open(tmp_path / "images.png") as sprite:
        assert sprite.size == (3 * 32, 2 * 64)
        reds = np.asarray(sprite)[32::64, 16::32, 0]
    assert reds.tolist() == [[0, 50, 100], [150, 200, 0]]


def test_a_deleted_event_file_stops_no_training(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.tensorboard.mkdir()
    run.keep_metrics([inter_epoch(0, loss=2.0)])
    for file in run.tensorboard.iterdir():
        file.unlink()
    run.append_metrics(inter_epoch(1, loss=1.0))
    assert points(run.tensorboard)["loss"] == {2: 1.0}


def test_without_the_package_a_run_that_writes_events_is_told_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    run = RunFolder(tmp_path)
    run.keep_metrics([])
    run.tensorboard.mkdir()
    with pytest.raises(
        ConfigError, match=r"^the package tensorboard, .* is not installed\. Install it with: "
    ):
        run.keep_metrics([])


def test_a_run_with_nothing_left_but_its_features_does_not_know_their_clusters(
    tmp_path: Path, dataset: Dataset
) -> None:
    """It may be stopped behind its last epoch; with the last model as the one to use, labels are not kept."""
    settings = small_settings(
        inter={"epochs": 1, "iters": 1, "selection": {"model": "last"}, "refinement": {"enabled": False}}
    )
    run = begin("inter", tmp_path / "run", True)
    heads = []
    for _ in range(2):
        train_inter(settings, dataset, None, run, CPU, SilentReporter())
        heads.append((run.tensorboard / "metadata.tsv").read_text().partition("\n")[0].split("\t"))
    assert heads == [["image", "camera", "cluster", "identity"], ["image", "camera", "identity"]]
