from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calr_cli.data.augment import Augmentation, normalise
from calr_cli.data.loaders import ImageFiles
from calr_cli.errors import DataError, MemoryLimitError, TrainingError
from calr_cli.events import SilentReporter
from calr_cli.models.camera_classifier import CameraClassifier, draw_kept_units
from calr_cli.models.encoder import Encoder
from calr_cli.training import ClusterMemory, epoch
from calr_cli.training.average import RunningAverage
from calr_cli.training.cluster_contrast import MemoryTerm
from calr_cli.training.epoch import EpochLosses, train_epoch
from calr_cli.training.losses import camera_loss
from calr_cli.training.networks import Networks
from calr_cli.training.objective import CameraAlignment, Objective
from calr_cli.training.proxies import CameraProxies, proxy_labels
from calr_cli.training.reproducibility import keyed_rng
from calr_cli.training.step import Batching
from calr_cli.types import ImageSet
from tests.support.features import unit_features
from tests.support.image_sets import make_image_set

NOTHING = Augmentation(flip_probability=0, padding=0, erasing_probability=0)
LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
BATCH = np.array([[0, 4, 1, 8, 5, 2]])
WEIGHTS = np.array([0.0, 0.5, 2.0], np.float32)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return make_image_set(tmp_path_factory.mktemp("images"), 9, cameras=3)


@pytest.fixture(scope="module")
def fresh() -> Encoder:
    torch.manual_seed(0)
    return Encoder("resnet18")


def make_memory() -> ClusterMemory:
    return ClusterMemory(unit_features(0, 3, 512))


def train(
    encoder: Encoder,
    images: ImageSet,
    batches: np.ndarray = BATCH,
    *,
    memory: ClusterMemory | None = None,
    lr: float = 0.1,
    alignment: CameraAlignment | None = None,
    average: RunningAverage | None = None,
    **options: Any,
) -> EpochLosses:
    parameters = [*encoder.parameters(), *(alignment.classifier.parameters() if alignment else [])]
    classifier = alignment.classifier if alignment else None
    mode = options.pop("update_mode", "all")
    terms = [MemoryTerm(memory or make_memory(), LABELS, mode), *options.pop("terms", [])]
    weights = options.pop("class_weights", None)
    batching = Batching(
        options.pop("augmentation", NOTHING), partial(keyed_rng, 0), options.pop("group_size", 0)
    )
    assert not options
    return train_epoch(
        Networks(encoder, torch.optim.SGD(parameters, lr), classifier, average),
        Objective(terms, LABELS, images.camids, weights, alignment),
        ImageFiles(images, 32, 16, 1),
        batches,
        batching,
        title="epoch",
        reporter=SilentReporter(),
    )


def features_of_the_batch(encoder: Encoder, images: ImageSet) -> torch.Tensor:
    (block,) = ImageFiles(images, 32, 16, 1).batches(BATCH)
    features: torch.Tensor = encoder.train()(normalise(block))
    return features


def weights_of(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


@pytest.mark.parametrize("mode", ["all", "hard"])
@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_one_step_by_hand(fresh: Encoder, images: ImageSet, mode: Any, class_weights: Any) -> None:
    # The same step written out: loss against the memory, descent, then the memory moves by the
    # features that the loss was taken on (not by those of the weights after the step).
    expected, memory = copy.deepcopy(fresh), make_memory()
    features, targets = features_of_the_batch(expected, images), torch.from_numpy(LABELS[BATCH[0]])
    loss = memory.loss(features, targets, class_weights)
    optimiser = torch.optim.SGD(expected.parameters(), 0.1)  # Adam's first step is the sign of noise
    torch.autograd.backward(loss)
    optimiser.step()
    memory.update(features.detach(), targets, mode)

    encoder, moved = copy.deepcopy(fresh), make_memory()
    losses = train(encoder, images, memory=moved, update_mode=mode, class_weights=class_weights)
    assert losses.cluster == pytest.approx(loss.item(), rel=1e-5)
    assert losses.camera is None
    assert encoder.training
    torch.testing.assert_close(weights_of(encoder), weights_of(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moved.centroids, memory.centroids, rtol=1e-5, atol=1e-5)
    assert not torch.equal(weights_of(encoder), weights_of(fresh))
    assert not torch.equal(moved.centroids, make_memory().centroids)


def test_class_weights_change_the_loss(fresh: Encoder, images: ImageSet) -> None:
    plain = train(copy.deepcopy(fresh), images).cluster
    assert train(copy.deepcopy(fresh), images, class_weights=WEIGHTS).cluster != pytest.approx(plain)
    nothing = np.zeros(3, np.float32)  # all weights 0 in the batch: the plain mean, not NaN
    assert train(copy.deepcopy(fresh), images, class_weights=nothing).cluster == pytest.approx(plain)


def test_frozen_parts_stay_and_running_statistics_move(fresh: Encoder, images: ImageSet) -> None:
    encoder = copy.deepcopy(fresh)
    for parameter in encoder.backbone.parameters():
        parameter.requires_grad_(False)
    train(encoder, images, np.repeat(BATCH, 2, axis=0))
    assert torch.equal(encoder.neck.bias, fresh.neck.bias)
    assert torch.equal(weights_of(encoder.backbone), weights_of(fresh.backbone))
    assert not torch.equal(encoder.neck.weight, fresh.neck.weight)
    assert not torch.equal(encoder.neck.running_mean, fresh.neck.running_mean)


def aligned(weight: float, kind: Any = "logits") -> CameraAlignment:
    torch.manual_seed(1)
    return CameraAlignment(CameraClassifier(512, 3), weight, kind)


@pytest.mark.parametrize("kind", ["logits", "reference"])
def test_alignment_adds_the_weighted_camera_loss(fresh: Encoder, images: ImageSet, kind: Any) -> None:
    expected, alignment = copy.deepcopy(fresh), aligned(0.5, kind)
    features = features_of_the_batch(expected, images)
    kept = torch.from_numpy(draw_kept_units(6, keyed_rng(0, 0, "dropout")))
    camids = torch.from_numpy(images.camids[BATCH[0]])
    camera = camera_loss(alignment.classifier(features, kept), camids, kind)
    cluster = make_memory().loss(features, torch.from_numpy(LABELS[BATCH[0]]))
    torch.autograd.backward(cluster + 0.5 * camera)
    optimiser = torch.optim.SGD(expected.parameters(), 0.1)  # Adam's first step is the sign of noise
    optimiser.step()

    encoder, alignment = copy.deepcopy(fresh), aligned(0.5, kind)
    before = weights_of(alignment.classifier)
    losses = train(encoder, images, alignment=alignment)
    assert losses.cluster == pytest.approx(cluster.item(), rel=1e-5)
    assert losses.camera == pytest.approx(camera.item(), rel=1e-5)
    torch.testing.assert_close(weights_of(encoder), weights_of(expected), rtol=1e-5, atol=1e-5)
    assert not torch.equal(weights_of(alignment.classifier), before)


def test_alignment_of_weight_0_leaves_the_encoder_s_step_alone(fresh: Encoder, images: ImageSet) -> None:
    with_head, without = copy.deepcopy(fresh), copy.deepcopy(fresh)
    train(with_head, images, alignment=aligned(0.0))
    train(without, images)
    assert torch.equal(weights_of(with_head), weights_of(without))
    train(with_head := copy.deepcopy(fresh), images, alignment=aligned(1.0))
    assert not torch.equal(weights_of(with_head), weights_of(without))


@pytest.mark.parametrize("class_weights", [None, WEIGHTS, np.zeros(3, np.float32)])
def test_proxies_add_their_weighted_loss(fresh: Encoder, images: ImageSet, class_weights: Any) -> None:
    proxies = proxy_labels(LABELS, images.camids)
    rows = torch.from_numpy(unit_features(1, int(proxies.max()) + 1, 512))
    camera_proxies = CameraProxies(0.3, momentum=0.1, temperature=0.07, num_negatives=4)
    expected, by_hand = copy.deepcopy(fresh), camera_proxies(rows, LABELS, images.camids)
    features, targets = features_of_the_batch(expected, images), torch.from_numpy(LABELS[BATCH[0]])
    weights = torch.ones(6) if class_weights is None else torch.from_numpy(class_weights)[targets]
    weights = weights if weights.any() else torch.ones(6)  # a batch of clusters of weight 0
    losses = make_memory().losses(features, targets) + 0.3 * by_hand.losses(features, BATCH[0])
    loss = (weights * losses).sum() / weights.sum()
    torch.autograd.backward(loss)
    torch.optim.SGD(expected.parameters(), 0.1).step()
    by_hand.update(features.detach(), BATCH[0])

    encoder, contrast = copy.deepcopy(fresh), camera_proxies(rows, LABELS, images.camids)
    found = train(encoder, images, class_weights=class_weights, terms=[contrast])
    assert found.cluster == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(weights_of(encoder), weights_of(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(contrast.rows, by_hand.rows, rtol=1e-5, atol=1e-5)
    assert not torch.equal(contrast.rows, rows)


def test_the_average_follows_every_step(fresh: Encoder, images: ImageSet) -> None:
    """It begins with the weights after the first step, and has running statistics, too."""
    encoder = copy.deepcopy(fresh)
    average = RunningAverage(encoder, 0.75)
    assert torch.equal(weights_of(average.module), weights_of(fresh))
    seen: list[dict[str, torch.Tensor]] = []
    for step in range(3):
        train(encoder, images, lr=0.1 * (step + 1), average=average)
        seen.append({name: value.clone() for name, value in encoder.state_dict().items()})
    alone = copy.deepcopy(fresh)
    for step in range(3):
        train(alone, images, lr=0.1 * (step + 1))
    assert torch.equal(weights_of(alone), weights_of(encoder))  # which it does not touch
    for name, value in average.module.state_dict().items():
        if value.is_floating_point():
            by_hand = 0.75 * (0.75 * seen[0][name] + 0.25 * seen[1][name]) + 0.25 * seen[2][name]
            torch.testing.assert_close(value, by_hand, rtol=1e-5, atol=1e-6, msg=name)


def test_augmentation_is_applied_and_drawn_from_the_generator(fresh: Encoder, images: ImageSet) -> None:
    first, again, plain = (copy.deepcopy(fresh) for _ in range(3))
    options = {"augmentation": Augmentation(padding=2)}
    losses = train(first, images, **options)
    assert train(again, images, augmentation=Augmentation(padding=2)) == losses
    assert torch.equal(weights_of(first), weights_of(again))
    assert train(plain, images) != losses


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(TrainingError) as caught:
        train(*args, **options)
    (line,) = caught.value.lines()
    return str(line)


HINT = (
    "What was saved last is good: continue from it with a lower optimiser.lr or a higher "
    "memory.temperature of this stage (--resume RUN_FOLDER --set KEY=VALUE)"
)


def test_a_loss_that_is_not_a_number_names_its_iteration(fresh: Encoder, images: ImageSet) -> None:
    memory = make_memory()
    memory.centroids[1, 0] = torch.nan
    line = refusal(copy.deepcopy(fresh), images, memory=memory)
    assert line == f"epoch: the loss is not a number at iteration 1. {HINT}"


@pytest.mark.parametrize("bad", [1, 3, 10, 11, 12])
def test_the_iteration_is_the_first_bad_one(fresh: Encoder, images: ImageSet, bad: int) -> None:
    class Bad(ClusterMemory):
        calls = 0

        def losses(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().losses(features, labels) * (torch.nan if self.calls == bad else 1)

    memory = Bad(unit_features(0, 3, 512))
    line = refusal(copy.deepcopy(fresh), images, np.tile([0, 3], (12, 1)), memory=memory)
    assert line.startswith(f"epoch: the loss is not a number at iteration {bad}. ")


def test_a_learning_rate_that_blows_up(fresh: Encoder, images: ImageSet) -> None:
    line = refusal(copy.deepcopy(fresh), images, np.repeat(BATCH, 3, axis=0), lr=1e30)
    assert line.startswith("epoch: the loss is not a number at iteration 2. ")


@pytest.mark.parametrize(
    ("group_size", "at_a_time", "smaller", "full"),
    [
        (4, 4, 2, torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        (0, 6, 3, torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        (4, 4, 2, RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")),
    ],
)
def test_a_full_gpu_says_how_many_images_were_too_many_and_which_setting_halves_them(
    fresh: Encoder, images: ImageSet, group_size: int, at_a_time: int, smaller: int, full: RuntimeError
) -> None:
    class Full(ClusterMemory):
        def losses(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            raise full

    memory = Full(unit_features(0, 3, 512))
    with pytest.raises(MemoryLimitError) as caught:
        train(copy.deepcopy(fresh), images, memory=memory, group_size=group_size)
    (line,) = caught.value.lines()
    assert f"is full with {at_a_time} images at a time" in line
    assert f"--set batch_norm_group_size={smaller}," in line


def test_a_gpu_without_room_for_the_next_pixels_is_full_as_well(
    fresh: Encoder, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(blocks: Any, device: torch.device) -> Any:
        yield next(blocks)
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 24.00 MiB")

    monkeypatch.setattr(epoch, "copied_ahead", full)
    with pytest.raises(MemoryLimitError, match="is full with 6 images at a time"):
        train(copy.deepcopy(fresh), images, np.repeat(BATCH, 2, axis=0))


def test_an_unreadable_image_ends_the_epoch(fresh: Encoder, tmp_path: Path) -> None:
    images = make_image_set(tmp_path, 9)
    (tmp_path / "004.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"004\.png: cannot be read"):
        train(copy.deepcopy(fresh), images)
