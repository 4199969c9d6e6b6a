"""Training on a GPU that is pretended: the CPU's bits, and no wait between two looks at the loss."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from calr_cli.data.augment import Augmentation
from calr_cli.data.loaders import StoredPixels
from calr_cli.events import SilentReporter
from calr_cli.extraction import extract_features
from calr_cli.models import batch_norm
from calr_cli.models.camera_classifier import CameraClassifier
from calr_cli.models.encoder import Encoder
from calr_cli.training import cluster_contrast
from calr_cli.training.average import RunningAverage
from calr_cli.training.cluster_contrast import ClusterContrast
from calr_cli.training.epoch import train_epoch
from calr_cli.training.networks import Networks
from calr_cli.training.objective import CameraAlignment, Loss, Objective
from calr_cli.training.optim import build_optimiser
from calr_cli.training.proxies import CameraProxies
from calr_cli.training.reproducibility import keyed_rng
from calr_cli.training.step import Batching, TrainingStep
from calr_cli.transfer import to_device
from calr_cli.types import FloatArray, IntArray
from tests.support.pretended_cuda import Record, pretended_cuda

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
IMAGES, CLUSTERS, CAMERAS, BATCH = 24, 4, 2, 8
LABELS, CAMIDS = np.arange(IMAGES) % CLUSTERS, np.arange(IMAGES) // CLUSTERS % CAMERAS
PIXELS = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 16, 3), np.uint8)
BATCHES = np.stack([np.random.default_rng(step).permutation(IMAGES)[:BATCH] for step in range(2)])


class Own:
    """A loss such as a plugin's: the distance to a row for each cluster, which does not move."""

    weight = 0.1
    rows: Tensor
    peeks = False

    def start(self, features: FloatArray, labels: IntArray, camids: IntArray) -> FloatArray:
        return np.stack([features[labels == label].mean(0) for label in range(labels.max() + 1)])

    def __call__(self, rows: Tensor, labels: IntArray, camids: IntArray) -> Own:
        self.rows, self.labels = rows, to_device(labels, rows.device)
        return self

    def losses(self, features: Tensor, positions: IntArray) -> Tensor:
        if self.peeks and bool(features.sum() > 1e6):
            raise AssertionError
        here = to_device(positions, features.device)
        return (normalize(features) - self.rows[self.labels[here]]).square().sum(dim=1)

    def update(self, features: Tensor, positions: IntArray) -> None:
        pass


MEMORY = ClusterContrast(0.05, 0.1)
RECIPES: dict[str, list[Loss]] = {
    "calr": [MEMORY],
    "the hardest, within cameras": [ClusterContrast(0.05, 0.1, "hard")],
    "plus": [MEMORY, CameraProxies(0.5, 0.1, 0.07, 3)],
    "plus and a loss of one's own": [MEMORY, CameraProxies(0.5, 0.1, 0.07, 3), Own()],
}


def parts(device: torch.device, losses: list[Loss], arch: str, average: bool) -> tuple[Networks, Objective]:
    torch.manual_seed(0)
    encoder = Encoder(arch).to(device)
    classifier = CameraClassifier(encoder.feature_dim, CAMERAS).to(device)
    features = np.random.default_rng(0).normal(size=(IMAGES, encoder.feature_dim)).astype(np.float32)
    parameters = [*encoder.parameters(), *classifier.parameters()]
    networks = Networks(
        encoder,
        build_optimiser(parameters, lr=1e-3, weight_decay=5e-4),
        classifier,
        RunningAverage(encoder, 0.9) if average else None,
    )
    terms = [
        loss(torch.from_numpy(loss.start(features, LABELS, CAMIDS)).to(device), LABELS, CAMIDS)
        for loss in losses
    ]
    weights = np.linspace(0.5, 1, CLUSTERS).astype(np.float32)
    return networks, Objective(terms, LABELS, CAMIDS, weights, CameraAlignment(classifier, 0.5, "logits"))


def batching(group_size: int = 4) -> Batching:
    return Batching(Augmentation(padding=2), partial(keyed_rng, 0), group_size)


def train(
    device: torch.device, losses: list[Loss], arch: str = "resnet18", record: Record | None = None
) -> dict[str, Tensor]:
    """Everything that two steps change, and features afterwards; the record is that of the epoch."""
    networks, objective = parts(device, losses, arch, average=len(losses) > 1)
    if record is not None:
        record.clear()
    train_epoch(
        networks,
        objective,
        StoredPixels(PIXELS),
        BATCHES,
        batching(),
        title="epoch",
        reporter=SilentReporter(),
    )
    waits = [] if record is None else list(record.waits)
    result = {
        f"{name}.{key}": value.cpu()
        for name, module in networks.modules.items()
        for key, value in module.state_dict().items()
    }
    result |= {f"rows {n}": term.rows.cpu() for n, term in enumerate(objective.terms)}
    found = extract_features(networks.encoder, StoredPixels(PIXELS), batch_size=10, reporter=SilentReporter())
    if record is not None:
        record.waits[:] = waits
    return {**result, "features": torch.from_numpy(found)}


def assert_same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_epoch_has_the_cpu_s_bits_and_one_wait(recipe: str) -> None:
    """The one wait is the look at the losses at the end: with 2 steps there is no other."""
    expected = train(CPU, RECIPES[recipe])
    with pretended_cuda() as record:
        found = train(GPU, RECIPES[recipe], record=record)
    assert_same_bits(found, expected)
    assert [(wait.why, wait.where.split(":")[0]) for wait in record.waits] == [
        ("copy, to the host", "training/epoch.py")
    ]


@pytest.mark.parametrize("arch", ["resnet50", "resnet_ibn50a", "mobilenet_v2"])
def test_every_kind_of_network_trains_on_the_second_gpu(arch: str) -> None:
    expected = train(CPU, RECIPES["calr"], arch)
    with pretended_cuda(2) as record:
        found = train(torch.device("cuda", 1), RECIPES["calr"], arch, record)
        assert set(record.places) == {"cuda:1"}
    assert_same_bits(found, expected)
    assert len(record.waits) == 1


def test_a_label_left_on_the_cpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: the device refuses what a GPU refuses, and says where."""
    monkeypatch.setattr(cluster_contrast, "to_device", lambda values, device: torch.as_tensor(values))
    with (
        pretended_cuda(),
        pytest.raises(RuntimeError, match=r"two devices, cpu, cuda:0.*training/memory\.py:"),
    ):
        train(GPU, RECIPES["calr"])


def test_a_value_asked_for_within_a_step_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: one wait for each of two groups in each of two steps."""
    monkeypatch.setattr(Own, "peeks", True)
    with pretended_cuda() as record:
        train(GPU, RECIPES["plus and a loss of one's own"], record=record)
    peeks = [wait for wait in record.waits if wait.why == "the value of a tensor"]
    assert len(peeks) == 4
    assert {wait.where.split(":")[0] for wait in peeks} == {"training/objective.py"}


def test_what_a_gpu_refuses_and_what_it_waits_for() -> None:
    with pretended_cuda(2) as record:
        rows, other = torch.ones(3, 2, device="cuda"), torch.ones(3, 2, device="cuda:1")
        pinned = torch.ones(3, 2, pin_memory=True)
        with pytest.raises(RuntimeError, match="two devices, cuda:0, cuda:1"):
            rows + other
        with pytest.raises(RuntimeError, match="two devices, cpu, cuda:0"):
            torch.matmul(rows, torch.ones(2))
        for to_numpy in (rows.numpy, lambda: np.asarray(rows)):
            with pytest.raises(TypeError, match="can't convert cuda:0"):
                to_numpy()
        with pytest.raises(RuntimeError, match="invalid device ordinal"):
            torch.ones(1, device="cuda:2")
        assert record.waits == []

        rows *= torch.tensor(2.0)  # a single number may be on the CPU
        there = to_device(np.ones((3, 2), np.float32), rows.device) + pinned.to("cuda", non_blocking=True)
        assert record.waits == []
        assert (there.device, record.copied) == (torch.device("cuda", 0), 48)

        mask = rows > 1
        waiting = {
            "the value of a tensor": [rows.sum().item, lambda: bool(mask.any()), lambda: float(rows[0, 0])],
            "nonzero": [mask.nonzero],
            "indexing with a mask": [lambda: rows[mask], lambda: rows.index_put_((mask,), rows[mask])],
            "copy, to the host": [rows.cpu, rows.tolist, lambda: torch.empty(3, 2).copy_(rows)],
            "copy, to the device": [
                lambda: torch.ones(2).to("cuda"),
                lambda: pinned.to("cuda"),
                lambda: torch.tensor([1.0], device="cuda"),
                lambda: rows.new_tensor([1.0]),
                lambda: rows.copy_(torch.ones(3, 2)),
            ],
            "synchronize": [torch.cuda.synchronize],
        }
        for why, calls in waiting.items():
            for call in calls:
                record.clear()
                call()
                assert {wait.why for wait in record.waits} == {why}


def test_synchronised_batch_norms_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm, "all_reduce", lambda tensor: tensor)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(32))
    batch_norm.synchronise_batch_norms(network)
    with pretended_cuda() as record:
        network.to("cuda")
        images = torch.randn(5, 3, 4, 2, device="cuda")
        record.clear()
        network(images).sum().backward()
        assert record.waits == []


def test_the_running_average_is_torch_s_in_two_launches() -> None:
    """Bit by bit, but for the counters of batches, of which an average means nothing."""
    torch.manual_seed(0)
    network = Encoder("resnet18")
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    with pretended_cuda() as record:
        ours = RunningAverage(copy.deepcopy(network).to("cuda"), 0.9)
        for _ in range(3):
            with torch.no_grad():
                for tensor in network.state_dict().values():
                    tensor += torch.rand(tensor.shape) if tensor.is_floating_point() else 1
            theirs.update_parameters(network)
            moved = copy.deepcopy(network).to("cuda")
            record.clear()
            ours.follow(moved)
            assert sum(record.launches.values()) == 2
            assert record.waits == []
        state = {name: value.cpu() for name, value in ours.state_dict().items()}
    expected = theirs.state_dict()
    assert state.keys() == expected.keys()  # runs of an older version resume
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert len(counters) == 21
    for name in state.keys() - counters:
        assert torch.equal(state[name], expected[name]), name


@pytest.mark.gpu
def test_a_step_never_waits_for_a_gpu() -> None:
    """What the pretended device counts, asked of the real one."""
    losses = RECIPES["plus and a loss of one's own"]
    networks, objective = parts(torch.device("cuda"), losses, "resnet18", average=True)
    step = TrainingStep(networks, objective, BATCH, batching())
    blocks = [to_device(torch.from_numpy(PIXELS[batch]), torch.device("cuda")) for batch in BATCHES]
    step(0, BATCHES[0], blocks[0])  # the first looks for algorithms and makes the state of the optimiser
    networks.follow()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(1, BATCHES[1], blocks[1])
        networks.follow()
    finally:
        torch.cuda.set_sync_debug_mode("default")
