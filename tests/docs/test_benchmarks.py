"""The benchmarks of docs/performance.md run, and their algorithms agree with ours, at a tiny size."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calr_cli.data.samplers import cluster_batches
from calr_cli.distances import knn
from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard, save_model
from calr_cli.types import IntArray

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_peers_algorithms_reproduce_the_golden_numbers(
    golden: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What we are measured against computes the same."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    dense_jaccard = importlib.import_module("labels").dense_jaccard
    dense_rerank = importlib.import_module("dense_reranking").dense_rerank
    features, query, gallery = golden["features"], golden["query"], golden["gallery"]
    ranking = knn(features, 30).indices
    np.testing.assert_allclose(dense_jaccard(features, ranking, 30, 6), golden["jaccard_30_6"], atol=1e-5)
    np.testing.assert_allclose(
        dense_rerank(features[query], features[gallery]), golden["rerank_distance_20_6_0.3"], atol=1e-5
    )


def run(script: str, *arguments: str, folder: Path) -> dict[str, Any]:
    file = folder / "figures.json"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, *arguments, "--json", file],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert any(f"| {column} |" in done.stdout for column in ("step", "images", "run"))
    content: dict[str, Any] = json.loads(file.read_text())
    assert "cores of" in content["machine"]
    return content


@pytest.mark.parametrize("loop", ["plain_loop.PlainLoop", "our_loop.OurLoop"])
def test_both_loops_let_cudnn_look_for_the_fastest_algorithm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loop: str
) -> None:
    """Ours did not, which the product does: on a GPU we would have measured ourselves too slow."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    module, name = loop.split(".")
    images = importlib.import_module("training").write_images(
        tmp_path / "images", importlib.import_module("measuring").made_up(2, 2, 2, 4, seed=0)
    )
    work = importlib.import_module("training_loops").Work(images, 2, "resnet18", 32, 16, 2, "cpu", 1, None)
    getattr(importlib.import_module(module), name)(work, *(["fp32"] if name == "OurLoop" else []))
    assert torch.backends.cudnn.benchmark


def test_what_a_part_gives_is_compared_seed_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def figures(*maps: float) -> dict[str, Any]:
        return {split: {"mAP": mAP} for split, mAP in zip(("all", "even", "odd"), maps, strict=True)}

    results = {
        "plus": {
            "1": {"last": figures(60, 62, 58), "not averaged": figures(59, 61, 58)},
            "2": {"last": figures(64, 65, 63)},
        },
        "plus-no-proxies": {
            "3": {"last": figures(1, 1, 1)},
            "2": {"last": figures(61, 62, 60)},
            "1": {"last": figures(59, 61, 57)},
        },
        "calr-last-pivot": {"1": {"last": figures(40, 40, 40)}},  # nothing to compare it with
    }
    monkeypatch.syspath_prepend(BENCHMARKS)
    assert importlib.import_module("parts").rows(results) == [
        {"run": "plus-no-proxies", **dict.fromkeys(("all", "even", "odd"), "+2.0 ± 1.4 (+1.0, +3.0)")},
        {
            "run": "plus, not averaged",
            "all": "+1.0 (seed 1)",
            "even": "+1.0 (seed 1)",
            "odd": "+0.0 (seed 1)",
        },
    ]


def test_a_blind_sampler_pairs_images_of_one_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    labels, camids = np.zeros(8, np.int64), np.arange(8) // 4  # one cluster, half of it from each camera

    def same_camera(batches: Callable[..., IntArray]) -> bool:
        rng = np.random.default_rng(0)
        drawn = batches(labels, camids, batch_size=2, num_instances=2, iterations=50, rng=rng)
        return bool((camids[drawn[:, 0]] == camids[drawn[:, 1]]).any())

    assert not same_camera(cluster_batches)
    assert same_camera(importlib.import_module("blind_sampler").blind_batches)


def test_soft_weights_follow_the_largest_local_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    global_labels, local_labels = np.array([0, 0, 0, 0, -1, 1]), np.array([4, 4, 5, 9, 5, 5])
    weights = importlib.import_module("soft_weights").evidence(
        global_labels, local_labels, np.array([0, 0, 0, 1, 0, 0])
    )
    assert weights.tolist() == [1, 1, 0.5, 1, 1, 1]


@pytest.mark.e2e
def test_labels(tmp_path: Path) -> None:
    rows = run("labels.py", "--size", "tiny", "--dim", "64", "--only", "jaccard", folder=tmp_path)["jaccard"]
    assert [row["step"].split()[0] for row in rows] == ["encoding", "encoding", "dense"]
    assert float(rows[1]["largest difference"]) < 1e-5


@pytest.mark.e2e
def test_labels_of_an_epoch(tmp_path: Path) -> None:
    rows = run("labels.py", "--size", "tiny", "--dim", "64", "--only", "labels", folder=tmp_path)["labels"]
    steps = [row["step"] for row in rows]
    assert steps.count("- k-NN") == steps.count("- Infomap") >= 2
    assert sum(row.get("share", 0) for row in rows[2:8]) == pytest.approx(1)


@pytest.mark.e2e
def test_evaluation(tmp_path: Path) -> None:
    # The script itself refuses scores that differ by more than 1e-6.
    rows = run("evaluation.py", "--size", "tiny", "--dim", "64", folder=tmp_path)["ranking"]
    assert {"calr, from the matrix", "argsort and loop"} <= {row["step"] for row in rows}
    assert all(0 < row["scores"][0] < 1 for row in rows if "scores" in row)


@pytest.mark.e2e
def test_reranking(tmp_path: Path) -> None:
    rows = run("reranking.py", "--size", "tiny", "--dim", "64", folder=tmp_path)["rows"]
    assert float(rows[1]["largest difference"]) < 1e-4


@pytest.mark.e2e
def test_pooling(tmp_path: Path) -> None:
    rows = run("pooling.py", "--map", "tiny", "--repeat", "2", folder=tmp_path)["rows"]
    assert [row["way"] for row in rows] == ["autograd", "calr"]


@pytest.mark.e2e
def test_launches(tmp_path: Path) -> None:
    rows = run("launches.py", "-a", "resnet18", "-b", "80", "--width", "16", folder=tmp_path)["rows"]
    assert [row["step"] for row in rows] == ["calr", "plus"]
    # A copy of the pixels of the batch, and of numbers that are few beside them; nothing is waited for.
    assert [row["waits"] for row in rows] == [0, 0]
    for row in rows:
        assert row["of pixels MB"] == 80 * 256 * 16 * 3 / 1e6
        assert 0 < row["copied MB"] - row["of pixels MB"] < 0.1
        assert row["launches"] < row["operations"]
    assert [row["of the average"] for row in rows] == [0, 2]


@pytest.mark.e2e
def test_waiting(tmp_path: Path) -> None:
    short = ["--busy", "0", "1", "--steps", "2", "--rounds", "1", "--limit", "5"]
    rows = run("waiting.py", *short, folder=tmp_path)["rows"]
    assert [(row["busy"], row["threads"]) for row in rows] == [
        (busy, threads)
        for busy in (0, 1)
        for threads in ("spin as by default", "spin briefly, as calr", "sleep at once")
    ]


@pytest.mark.e2e
def test_floor(tmp_path: Path) -> None:
    size = ("--arch", "resnet18", "--images", "8", "--groups", "2", "--height", "32", "--width", "16")
    step, extraction = run("floor.py", *size, folder=tmp_path)["rows"]
    # Backwards takes twice the products of forwards, but none for the images' own gradient.
    assert 2.5 < step["TFLOP"] / extraction["TFLOP"] < 3
    assert step["GB, fused"] < step["GB, all"]


def test_the_cost_of_an_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    cost = importlib.import_module("floor").cost
    a, b = torch.ones(2, 3), torch.ones(3, 5)
    product = cost(lambda: a @ b)
    assert (product.flops, product.bytes, product.operations) == (2 * 2 * 3 * 5, 4 * (6 + 15 + 10), 1)
    assert product.fused == product.bytes
    relu = cost(lambda: a.t().relu())  # a view moves nothing
    assert (relu.flops, relu.bytes, relu.fused, relu.operations) == (0, 4 * 12, 0, 1)


@pytest.mark.e2e
def test_folding(tmp_path: Path) -> None:
    tiny = ["--network", "tiny", "--precision", "bf16", "--repeat", "2"]
    rows = run("folding.py", *tiny, folder=tmp_path)["rows"]
    assert [row["way"] for row in rows] == ["as trained", "folded"]


@pytest.mark.e2e
def test_linkage(tmp_path: Path) -> None:
    run("linkage.py", "--images", "500", "--pairs", "40", folder=tmp_path)


@pytest.mark.e2e
def test_listing(tmp_path: Path) -> None:
    rows = run("listing.py", "--images", "100", folder=tmp_path)["listing"]
    assert len(rows) == 7
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.e2e
def test_searching(tmp_path: Path) -> None:
    # The script itself refuses results that differ.
    rows = run("searching.py", "--vectors", "60000", "--dim", "8", folder=tmp_path)["searching"]
    assert len(rows) == 2
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.e2e
def test_calibration(tmp_path: Path) -> None:
    card = ModelCard("synthetic", "inter", 0, "resnet18", "gem", 64, 32)
    torch.manual_seed(0)
    save_model(tmp_path / "model.pth", Encoder("resnet18"), card)
    arguments = ("--model", str(tmp_path / "model.pth"), "-d", "synthetic")
    rows = run("calibration.py", *arguments, folder=tmp_path)["calibration"]
    assert len(rows) == 5
    assert all(0 < row["expected calibration error"] < 1 for row in rows)


@pytest.mark.e2e
def test_identities(tmp_path: Path) -> None:
    card = ModelCard("synthetic", "inter", 0, "resnet18", "gem", 64, 32)
    torch.manual_seed(0)
    save_model(tmp_path / "model.pth", Encoder("resnet18"), card)
    arguments = ("--model", str(tmp_path / "model.pth"), "-d", "synthetic", "--parts", "even")
    rows = run("identities.py", *arguments, folder=tmp_path)["even"]
    assert [row["step"] for row in rows][-3:] == [
        "clusters of the recipe plus",
        "calr cluster",
        "calr cluster, true number",
    ]
    assert all(0 < row["bcubed_f"] < 1 for row in rows)


@pytest.mark.e2e
def test_gallery(tmp_path: Path) -> None:
    rows = run("gallery.py", "--images", "400", "--dim", "64", "--queries", "3", folder=tmp_path)["gallery"]
    assert [row["step"] for row in rows] == ["make it", "assign 3"]
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.e2e
def test_communities(tmp_path: Path) -> None:
    card = ModelCard("synthetic", "intra", 0, "resnet18", "gem", 64, 32)
    torch.manual_seed(0)
    save_model(tmp_path / "model.pth", Encoder("resnet18"), card)
    arguments = ("--resume", str(tmp_path / "model.pth"), "-d", "synthetic")
    rows = run("communities.py", *arguments, folder=tmp_path)["communities"]
    assert [row["step"] for row in rows] == ["Infomap", "calr"]
    assert all(row["clusters"] > 1 and 0 < row["pair F"] < 1 for row in rows)


@pytest.mark.e2e
def test_exporting(tmp_path: Path) -> None:
    # The script itself refuses features that differ.
    size = ("--arch", "resnet18", "--height", "32", "--width", "32", "--images", "1")
    rows = run("exporting.py", *size, folder=tmp_path)["exporting"]
    assert len(rows) == 3
    assert all(row["ms an image, batch 1"] > 0 for row in rows)
    assert rows[-1]["file, MB"] > 40


@pytest.mark.e2e
def test_training(tmp_path: Path) -> None:
    # The script itself refuses features that differ.
    options = ["--size", "tiny", "--device", "cpu", "--precision", "fp32", "--workers", "1"]
    content = run("training.py", *options, folder=tmp_path)
    loops = ("plain, fp32", "calr, fp32")
    rates = {(row["step"], row["loop"]): row["images/s"] for row in content["rates"]}
    assert rates.keys() == {(step, loop) for step in ("extraction", "training step") for loop in loops}
    assert min(rates.values()) > 0
    for loop in loops:
        *phases, whole = [row["seconds"] for row in content["epoch"] if row["loop"] == loop]
        assert min(phases) >= 0
        assert sum(phases) == pytest.approx(whole)


@pytest.mark.e2e
def test_selection(tmp_path: Path) -> None:
    # A line's criterion is of the model before its epoch, its monitoring of the one after: here they agree
    # but for the last change, and the model after three epochs is the best of both.
    quality = [50.0, 10.0, 20.0, 40.0, 35.0]  # after 0 .. 4 epochs; nobody monitors the first
    criterion = [0.9, 0.1, 0.2, 0.5, 0.4]
    lines = [{"epoch": e, "criterion": criterion[e], "monitoring": {"mAP": quality[e + 1]}} for e in range(4)]
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "metrics.jsonl").write_text(text)
        criteria = {str(epoch): value for epoch, value in enumerate(criterion) if epoch > 0}
        (tmp_path / name / "selection.json").write_text(json.dumps({"criteria": criteria, "selected": 3}))
    rows = run("selection.py", str(tmp_path / "one"), str(tmp_path / "other"), folder=tmp_path)["rows"]
    assert [row["models"] for row in rows] == [4, 4, 8]
    assert (rows[0]["best"], rows[0]["selected"], rows[0]["regret"]) == (3, 3, 0)
    assert rows[0]["regret of last"] == 5
    assert all(row["Spearman"] == pytest.approx(1) for row in rows)


def test_demonstration(tmp_path: Path) -> None:
    rows = [{"untrained": 5, "CALR": 20 + seed, "recipe plus": 22.0} for seed in range(3)]
    figures = {
        str(seed): {"rows": {model: {"mAP": mAP} for model, mAP in row.items()}, "seconds": 1.0}
        for seed, row in enumerate(rows)
    }
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    command = [sys.executable, BENCHMARKS / "demonstration.py", "--seeds", "0", "1", "2"]
    shown = subprocess.run(
        [*command, "--json", tmp_path / "figures.json"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert shown == [
        "| seed | untrained | CALR | recipe plus |",
        "| --- | --- | --- | --- |",
        "| 0 | 5.0 | 20.0 | 22.0 |",
        "| 1 | 5.0 | 21.0 | 22.0 |",
        "| 2 | 5.0 | 22.0 | 22.0 |",
        "| mean | 5.0 ± 0.0 | 21.0 ± 1.0 | 22.0 ± 0.0 |",
        "",
        "Each row is better than the row before it in 2 of 3 seeds.",
    ]
