from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calr_cli.errors import CalrError, DataError
from calr_cli.types import UNKNOWN_PID, Dataset, ImageSet
from calr_cli.use.label_files import diff_labels, import_labels, score_labels
from tests.support.released import write_released

HEADER = "path,camid,local_label\n"


def dataset(pids: list[int], camids: list[int]) -> Dataset:
    names = tuple(f"train/{pid:04d}_{n}.jpg" for n, pid in enumerate(pids))
    images = ImageSet(Path("/images"), names, np.array(pids), np.array(camids), names)
    none = images.subset(np.array([], dtype=np.int64))
    return Dataset("gate", images, none, none)


GATE = dataset([7, 7, 9, 7, 9, 9], [0, 0, 0, 2, 2, 2])
LABELS = [0, 0, 1, 4, 4, 4]


def released(folder: Path, labels: list[int] = LABELS) -> Path:
    images = GATE.train
    return write_released(folder, zip(images.paths, images.camids.tolist(), labels, strict=True))


def test_import(tmp_path: Path) -> None:
    output = tmp_path / "local_labels.csv"
    summary = import_labels(released(tmp_path / "in"), GATE, output)
    assert output.read_text() == HEADER + "".join(
        f"{path},{camid},{label}\n"
        for path, camid, label in zip(GATE.train.paths, GATE.train.camids, LABELS, strict=True)
    )
    assert summary == {
        "dataset": "gate",
        "images": 6,
        "clusters": 3,
        "other_rows": 0,
        "matched_by": "file name",
        "first_camera": 1,
        "local_labels": str(output),
        "per_camera": [
            {"camera": 0, "images": 3, "clusters": 2},
            {"camera": 2, "images": 3, "clusters": 1},
        ],
    }
    again = import_labels(output, GATE, tmp_path / "again.csv")
    assert (again["matched_by"], again["first_camera"]) == ("path", 0)
    assert (tmp_path / "again.csv").read_text() == output.read_text()


def test_score_by_hand(tmp_path: Path) -> None:
    scored = score_labels(released(tmp_path), GATE)
    first, second = scored["per_camera"]
    assert (first["camera"], first["pair_f"], first["num_singletons"]) == (0, 1.0, 1)
    assert (second["camera"], second["pair_precision"], second["pair_recall"]) == (2, 1 / 3, 1.0)
    assert scored["weighted"]["pair_precision"] == pytest.approx((1 + 1 / 3) / 2)
    # Over both cameras: 1 + 1 pairs of one identity, in 1 + 3 pairs of one label.
    assert scored["pooled"] == pytest.approx({"pair_precision": 0.5, "pair_recall": 1.0, "pair_f": 2 / 3})
    assert (scored["images"], scored["unlabelled"], scored["weighted"]["num_identities"]) == (6, 0, 4)


def test_score_by_the_identities_in_file_names(tmp_path: Path) -> None:
    by_dataset, by_names = score_labels(released(tmp_path), GATE), score_labels(tmp_path, None)
    assert by_names["dataset"] is None
    assert by_names["weighted"] == by_dataset["weighted"]
    assert by_names["pooled"] == by_dataset["pooled"]
    assert [camera["camera"] for camera in by_names["per_camera"]] == [1, 3]  # as the folders count


def test_score_of_a_part(tmp_path: Path) -> None:
    (released(tmp_path) / "cam1" / "pseudo_label.npy").unlink()
    scored = score_labels(tmp_path, GATE)
    assert (scored["images"], scored["unlabelled"]) == (3, 3)
    assert [camera["camera"] for camera in scored["per_camera"]] == [2]


def test_what_cannot_be_scored(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text(HEADER)
    with pytest.raises(DataError, match=r"l\.csv lists no image"):
        score_labels(path, None)
    with pytest.raises(
        DataError, match=r"l\.csv is of another dataset: it names none of the 6 training images"
    ):
        score_labels(path, GATE)
    with pytest.raises(DataError, match=r"The training images of gate have no identities"):
        score_labels(path, dataset([UNKNOWN_PID], [0]))
    path.write_text(HEADER + "train/0007_1.jpg,0,1\n7_x/street.jpg,0,1\n-1_c1.jpg,0,1\n")
    with pytest.raises(DataError) as error:
        score_labels(path, None)
    assert error.value.lines() == [
        f"{path}, line 3: no identity at the start of the file name: '7_x/street.jpg'",
        f"{path}, line 4: no identity at the start of the file name: '-1_c1.jpg'. "
        "Give the dataset that knows the identities: -d NAME",
    ]


def test_diff(tmp_path: Path) -> None:
    first, second = released(tmp_path / "first"), tmp_path / "second.csv"
    rows = [*zip(GATE.train.paths[1:], GATE.train.camids[1:], [3, 3, 0, 0, 1], strict=True), ("x.jpg", 0, 0)]
    second.write_text(HEADER + "".join(f"{path},{camid},{label}\n" for path, camid, label in rows))
    found = diff_labels(first, second)
    assert (found["images"], found["only_first"], found["only_second"], found["moved"]) == (5, 1, 1, 2)
    assert found["per_camera"] == [
        {"camera": 1, "images": 2, "first_clusters": 2, "second_clusters": 1, "ari": 0.0, "moved": 1},
        {"camera": 3, "images": 3, "first_clusters": 1, "second_clusters": 2, "ari": 0.0, "moved": 1},
    ]
    assert found["ari"] == 0.0
    back = diff_labels(second, first)
    assert (back["only_first"], back["only_second"], back["moved"]) == (1, 1, 2)
    assert [camera["camera"] for camera in back["per_camera"]] == [0, 2]


def test_labels_are_like_themselves(tmp_path: Path) -> None:
    found = diff_labels(released(tmp_path / "a"), released(tmp_path / "b", [3, 3, 0, 0, 0, 0]))
    assert (found["ari"], found["moved"]) == (1.0, 0)


def test_diff_of_strangers(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(HEADER + "a.jpg,0,0\n")
    with pytest.raises(DataError, match=r"have no image in common\. Give labels of the same dataset"):
        diff_labels(released(tmp_path / "a"), other)


def error_lines(command: Callable[[], object]) -> list[str]:
    try:
        command()
    except CalrError as error:
        return error.lines()
    return []


cells = st.sampled_from(
    [
        "train/0007_0.jpg",
        "0007_0.jpg",
        "/x/0009_2.jpg",
        "",
        "0",
        "1",
        "2",
        "-1",
        "x",
        "1e3",
        '"0007_\n.jpg"',
        "\x00",
        '"',
        "é",
    ]
)


@given(st.lists(st.lists(cells, min_size=2, max_size=4), max_size=6) | st.binary(max_size=80))
def test_any_table_is_read_or_refused_in_lines(table: list[list[str]] | bytes) -> None:
    """Each command on whatever may stand in a label file."""
    with TemporaryDirectory() as name:
        path, folder = Path(name) / "l.csv", Path(name) / "released"
        content = table if isinstance(table, bytes) else "\n".join(map(",".join, table)).encode()
        path.write_bytes(HEADER.encode() + content)
        for command in (
            lambda: import_labels(path, GATE, Path(name) / "out.csv"),
            lambda: score_labels(path, GATE),
            lambda: score_labels(path, None),
            lambda: diff_labels(path, folder if folder.exists() else released(folder)),
        ):
            assert not any("\n" in line for line in error_lines(command))


# method.md, section 6: pair P, R, F (pooled below), BCubed P, R, F, NMI, clusters, (camera, identity) groups,
# singletons in % of the clusters.
RELEASED = {
    "market1501": (
        [0.360, 0.500, 0.401],
        [0.357, 0.559, 0.436],
        [0.574, 0.624, 0.591, 0.870],
        (3600, 3262, 59),
    ),
    "dukemtmcreid": (
        [0.708, 0.326, 0.409],
        [0.718, 0.225, 0.343],
        [0.832, 0.574, 0.670, 0.890],
        (4800, 2196, 54),
    ),
    "msmt17": ([0.692, 0.627, 0.651], [0.664, 0.575, 0.616], [0.783, 0.702, 0.737, 0.908], (6518, 4821, 40)),
    "veri": ([0.887, 0.550, 0.676], [0.879, 0.546, 0.673], [0.936, 0.708, 0.805, 0.948], (7549, 5145, 8)),
}


@pytest.mark.real
@pytest.mark.parametrize("name", RELEASED)
def test_the_released_labels_score_what_is_known_of_them(shared: Path, name: str) -> None:
    scored = score_labels(shared / "official-labels" / f"{name}.csv.gz", None)
    pairs, pooled, bcubed, counts = RELEASED[name]
    weighted = scored["weighted"]
    assert [round(weighted[f"pair_{key}"], 3) for key in ("precision", "recall", "f")] == pairs
    assert [round(scored["pooled"][f"pair_{key}"], 3) for key in ("precision", "recall", "f")] == pooled
    keys = ("bcubed_precision", "bcubed_recall", "bcubed_f", "nmi")
    assert [round(weighted[key], 3) for key in keys] == bcubed
    singletons = round(100 * weighted["num_singletons"] / weighted["num_clusters"])
    assert (weighted["num_clusters"], weighted["num_identities"], singletons) == counts
