"""Whole commands on GPUs that are pretended: they end well, with the CPU's results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Calr
from tests.support.pretended_cuda import pretended_cuda

pytestmark = pytest.mark.e2e

NETWORK = [
    *["--pretrained", "none", "-a", "resnet18", "--height", "32", "--width", "32", "-j", "1"],
    *["--set", "precision=fp32", "--set", "batch_norm_group_size=4", "--set", "evaluation.monitor_every=0"],
]


def short(stage: str, **options: object) -> list[str]:
    few = {"epochs": 1, "iters": 2, "batch_size": 8, "num_instances": 2, **options}
    return [word for name, value in few.items() for word in ("--set", f"{stage}.{name}={value}")]


INTRA = short("intra", **{"clustering.k1": 5, "clustering.k2": 2})
INTER = short(
    "inter",
    **{"clustering.k": 4, "clustering.min_similarity": 0.3, "clustering.min_cluster_size": 2},
    **{"weights.start_epoch": 0},
)


def state(path: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    return found


def assert_same_model(first: Path, second: Path) -> None:
    one, two = state(first), state(second)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.parametrize("recipe", [[], ["--recipe", "plus"]], ids=["calr", "plus"])
def test_both_stages_on_the_second_gpu(calr: Calr, veri: str, folder: Path, recipe: list[str]) -> None:
    words = ["train", "-d", veri, *recipe, *NETWORK, *INTRA, *INTER, "--quiet", "--output"]
    assert calr(*words, "cpu", "--device", "cpu").exit_code == 0
    with pretended_cuda(2) as record:
        assert calr(*words, "gpu", "--gpus", "1").exit_code == 0
        assert set(record.places) == {"cuda:1"}
    for name in ("model.pth", "last.pth"):
        assert_same_model(folder / "gpu/inter" / name, folder / "cpu/inter" / name)
    labels = [(folder / run / "intra/local_labels.csv").read_bytes() for run in ("gpu", "cpu")]
    assert labels[0] == labels[1]


def test_a_run_goes_from_the_gpu_to_the_cpu_and_back(calr: Calr, veri: str, folder: Path) -> None:
    """The average and the optimiser are part of what goes along."""
    assert calr("train-intra", "-d", veri, *NETWORK, *INTRA, "--quiet", "--output", "intra").exit_code == 0
    labels = ["--local-labels", "intra/local_labels.csv", "--set", "inter.average=0.9"]
    words = ["train-inter", "-d", veri, *NETWORK, *INTER, *labels, "--quiet"]
    with pretended_cuda():
        assert calr(*words, "--output", "moved", "--gpus", "0").exit_code == 0
    longer = ["train-inter", "--quiet", "--resume", "moved"]
    assert calr(*longer, "--set", "inter.epochs=2", "--device", "cpu").exit_code == 0
    with pretended_cuda():
        assert calr(*longer, "--set", "inter.epochs=3").exit_code == 0  # a GPU is what it takes by itself

    stays = ["train-inter", "--quiet", "--resume", "stays", "--device", "cpu", "--set"]
    assert calr(*words, "--output", "stays", "--device", "cpu").exit_code == 0
    for epochs in (2, 3):
        assert calr(*stays, f"inter.epochs={epochs}").exit_code == 0
    assert_same_model(folder / "moved/model.pth", folder / "stays/model.pth")


def test_every_command_that_uses_a_model(calr: Calr, veri: str, veri_root: Path, folder: Path) -> None:
    assert calr("train-intra", "-d", veri, *NETWORK, *INTRA, "--quiet", "--output", "intra").exit_code == 0
    labels = ["--local-labels", "intra/local_labels.csv"]
    assert (
        calr("train-inter", "-d", veri, *NETWORK, *INTER, *labels, "--quiet", "--output", "run").exit_code
        == 0
    )
    images = veri_root / "veri/VeRi/image_query"
    query, other = sorted(images.iterdir())[:2]
    model = ["--resume", "run/model.pth", "--quiet"]
    commands: list[list[object]] = [
        ["evaluate", *model, "--rerank", "--calibrate", "--json"],
        ["embed", *model, images, "--output", "features.npz"],
        ["search", *model, query, "--gallery", images, "--json"],
        ["compare", *model, query, other, "--json"],
        ["report", "run", "--quiet"],
    ]
    for command in commands:
        on_cpu = calr(*command, "--device", "cpu")
        with pretended_cuda() as record:
            on_gpu = calr(*command)
            assert set(record.places) == {"cuda:0"}
        assert (on_gpu.exit_code, on_cpu.exit_code) == (0, 0), (command, on_gpu.stderr, on_cpu.stderr)
        if command[0] == "evaluate":  # products of other blocks are rounded otherwise
            assert on_gpu.json["mAP"] == pytest.approx(on_cpu.json["mAP"], abs=1e-6)
