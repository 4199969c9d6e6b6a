"""A training in float64 whose every number can be compared between numbers of processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from calr_cli.data.augment import Augmentation
from calr_cli.data.loaders import StoredPixels
from calr_cli.distributed import collectives
from calr_cli.distributed.launch import launch
from calr_cli.events import Reporter, SilentReporter
from calr_cli.extraction import extract_features
from calr_cli.method.build import build_average
from calr_cli.models.batch_norm import synchronise_batch_norms
from calr_cli.models.camera_classifier import CameraClassifier
from calr_cli.models.compiling import compile_backbone
from calr_cli.models.encoder import Encoder
from calr_cli.training.cluster_contrast import MemoryTerm
from calr_cli.training.epoch import train_epoch
from calr_cli.training.memory import ClusterMemory
from calr_cli.training.networks import Networks
from calr_cli.training.objective import CameraAlignment, Objective, Term
from calr_cli.training.optim import build_optimiser
from calr_cli.training.proxies import CameraProxies, proxy_labels
from calr_cli.training.reproducibility import keyed_rng
from calr_cli.training.step import Batching
from tests.support.features import unit_features

CLUSTERS, CAMERAS, IMAGES, STEPS = 5, 3, 41, 3


@dataclass(frozen=True)
class Scenario:
    """What differs between trainings."""

    batch_size: int = 24
    group_size: int = 6  # in tiny groups, statistics make much of rounding
    weighted: bool = False
    aligned: bool = False
    plus: bool = False
    """With camera proxies, a memory in groups, and a running average."""
    compiled: bool = False


class DoubleEncoder(Encoder):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.double())


def train_scenarios(
    device: torch.device, reporter: Reporter, scenarios: list[Scenario]
) -> list[dict[str, Tensor]]:
    """Weights, running statistics, memory, losses, and features after a few steps, of each scenario."""
    return [_train(device, scenario) for scenario in scenarios]


def trained(processes: int, scenarios: list[Scenario], logs: Path) -> list[dict[str, Tensor]]:
    """The same with a number of processes."""
    devices = [torch.device("cpu")] * processes
    return launch(train_scenarios, (scenarios,), devices=devices, reporter=SilentReporter(), logs=logs)


def _train(device: torch.device, scenario: Scenario) -> dict[str, Tensor]:
    torch.manual_seed(0)
    encoder = DoubleEncoder("resnet18").double()
    alignment = None
    if scenario.aligned:
        alignment = CameraAlignment(CameraClassifier(512, CAMERAS).double(), 0.5, "logits")
    if scenario.group_size == 0 and collectives.world_size() > 1:
        synchronise_batch_norms(encoder)
        if alignment is not None:
            synchronise_batch_norms(alignment.classifier)
    if scenario.compiled:
        compile_backbone(encoder, "aot_eager")
    heads = [] if alignment is None else list(alignment.classifier.parameters())
    optimiser = build_optimiser([*encoder.parameters(), *heads], lr=3.5e-4, weight_decay=5e-4)
    rng = np.random.default_rng(0)
    pixels = StoredPixels(rng.integers(0, 256, (IMAGES, 32, 16, 3), np.uint8))
    labels, camids = rng.integers(0, CLUSTERS, IMAGES), rng.integers(0, CAMERAS, IMAGES)
    memory = ClusterMemory(
        torch.from_numpy(unit_features(0, CLUSTERS, 512)).double(),
        groups=np.arange(CLUSTERS) % 2 if scenario.plus else None,
    )
    terms: list[Term] = [MemoryTerm(memory, labels)]
    average = None
    if scenario.plus:
        num_rows = int(proxy_labels(labels, camids).max()) + 1
        rows = torch.from_numpy(unit_features(1, num_rows, 512)).double()
        terms.append(CameraProxies(0.5, 0.1, 0.07, 4)(rows, labels, camids))
        average = build_average(encoder, 0.9)
    weights = np.linspace(0, 2, CLUSTERS).astype(np.float32) if scenario.weighted else None
    classifier = None if alignment is None else alignment.classifier
    losses = train_epoch(
        Networks(encoder, optimiser, classifier, average),
        Objective(terms, labels, camids, weights, alignment),
        pixels,
        np.stack([rng.permutation(IMAGES)[: scenario.batch_size] for _ in range(STEPS)]),
        Batching(Augmentation(padding=2), partial(keyed_rng, 0), scenario.group_size),
        title="epoch",
        reporter=SilentReporter(),
    )
    result = {f"encoder.{name}": value.clone() for name, value in encoder.state_dict().items()}
    if alignment is not None:
        result |= {f"head.{name}": value.clone() for name, value in alignment.classifier.state_dict().items()}
    if average is not None:
        result["proxies"] = terms[1].rows
        kept = average.state_dict()
        result |= {f"average.{name}": value.clone() for name, value in kept.items()}
        others = collectives.gather([value.numpy() for value in kept.values()])
        assert all(
            np.array_equal(a, b) for of_rank in others for a, b in zip(of_rank, others[0], strict=True)
        )
    result["memory"] = memory.centroids
    result["losses"] = torch.tensor([losses.cluster, losses.camera or 0.0])
    features = extract_features(encoder, pixels, batch_size=4, reporter=SilentReporter())
    result["features"] = torch.from_numpy(features)
    return result
