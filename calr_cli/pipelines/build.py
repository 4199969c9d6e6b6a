"""From settings to the objects that the algorithm works with; nothing else unpacks settings."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from calr_cli.allocation import require_memory
from calr_cli.config.schema import Memory, Optimiser, Settings
from calr_cli.data.augment import Augmentation
from calr_cli.distances.knn import approximate_knn, choose_backend, knn
from calr_cli.errors import ConfigError
from calr_cli.events import Reporter
from calr_cli.extraction import extract_features
from calr_cli.models.camera_classifier import CameraClassifier
from calr_cli.models.encoder import Encoder
from calr_cli.models.pretrained import load_pretrained
from calr_cli.pipelines.estimates import block_bytes, memory_limit, tell_estimate
from calr_cli.training.checkpoint import ModelCard
from calr_cli.training.epoch import CameraAlignment
from calr_cli.training.memory import ClusterMemory
from calr_cli.training.reproducibility import seed_torch
from calr_cli.types import Dataset, FloatArray, Neighbours


def choose_device(gpus: str | None, device: str | None, reporter: Reporter) -> torch.device:
    """The device that ``--gpus`` or ``--device`` ask for, or the best there is.

    Args:
        gpus: CUDA devices by number, separated by commas.
        device: ``cpu`` or ``cuda``.
        reporter: Told when the CPU is used for want of a GPU.

    Raises:
        ConfigError: Not such a list, a device that is not there, or more than one.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = (
        f"CUDA devices here: {', '.join(map(str, range(count)))}" if count else "there is no CUDA device here"
    )
    if gpus is not None:
        if device == "cpu":
            raise ConfigError("--gpus and --device cpu contradict each other", "Give one of them")
        numbers = [part.strip() for part in gpus.split(",")]
        if not all(number.isdecimal() for number in numbers) or len(set(numbers)) < len(numbers):
            raise ConfigError(
                f"--gpus {gpus!r} is not a list of different device numbers", "Write for instance --gpus 0"
            )
        if missing := [number for number in numbers if int(number) >= count]:
            raise ConfigError(
                f"--gpus {gpus}: no device {', '.join(missing)}; {there}",
                "Leave --gpus out to use the CPU" if not count else "Choose among these",
            )
        if len(numbers) > 1:
            raise ConfigError(f"--gpus {gpus}: one device at a time for now", f"Write --gpus {numbers[0]}")
        return torch.device("cuda", int(numbers[0]))
    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"--device {device!r} is not known", "Choose cpu or cuda")
    if device == "cuda" and not count:
        raise ConfigError(f"--device cuda: {there}", "Leave --device out to use the CPU")
    if device == "cpu" or not count:
        if device is None:
            reporter.note(f"no CUDA device: using the CPU ({torch.get_num_threads()} threads)")
        return torch.device("cpu")
    return torch.device("cuda", 0)


def check_start(settings: Settings) -> str:
    """Load the weights that training will start from, before anything is written; say which in one line.

    Raises:
        WeightsError: They are not there or do not fit.
    """
    return load_pretrained(Encoder(settings.model.arch, settings.model.pooling), settings.model.pretrained)


def build_encoder(settings: Settings, stage: str, device: torch.device) -> Encoder:
    """A new encoder with the pretrained weights asked for.

    Raises:
        WeightsError: The weights are not there or do not fit.
    """
    seed_torch(settings.seed, stage, "weights")
    encoder = Encoder(settings.model.arch, settings.model.pooling)
    load_pretrained(encoder, settings.model.pretrained)
    return encoder.to(device)


def build_alignment(
    settings: Settings, num_cameras: int, encoder: Encoder, device: torch.device
) -> CameraAlignment | None:
    """The camera classifier and its loss, or None where the method is run without them."""
    camera = settings.inter.camera
    if not camera.enabled or camera.adversarial_epochs == 0 or num_cameras < 2:
        return None
    seed_torch(settings.seed, "inter", "camera classifier")
    classifier = CameraClassifier(encoder.feature_dim, num_cameras, camera.alpha).to(device)
    # The released arithmetic is 1/C of the ordinary loss by itself.
    weight = (
        camera.weight if camera.weight is not None else 1 / num_cameras if camera.loss == "logits" else 1.0
    )
    return CameraAlignment(classifier, weight, camera.loss)


def build_augmentation(settings: Settings) -> Augmentation:
    """The random changes to training images."""
    augment = settings.augment
    return Augmentation(
        flip_probability=augment.flip_probability,
        padding=augment.padding,
        erasing_probability=augment.erasing_probability,
        erasing_area=(augment.erasing_area_min, augment.erasing_area_max),
        erasing_aspect_min=augment.erasing_aspect_min,
    )


def build_memory(memory: Memory, centroids: FloatArray, device: torch.device) -> ClusterMemory:
    """A memory that starts from ``centroids`` (K, D)."""
    rows = torch.from_numpy(centroids).to(device)
    return ClusterMemory(rows, temperature=memory.temperature, momentum=memory.momentum)


def optimiser_options(optimiser: Optimiser) -> dict[str, Any]:
    """Keyword arguments of `training.optim.build_optimiser`."""
    return optimiser.model_dump()


def build_extractor(settings: Settings, reporter: Reporter) -> Any:
    """`extract_features` with the run's input size, batch size and workers filled in."""
    return partial(
        extract_features,
        height=settings.data.height,
        width=settings.data.width,
        batch_size=settings.evaluation.batch_size,
        workers=settings.data.workers,
        reporter=reporter,
    )


def search_neighbours(
    settings: Settings, features: FloatArray, k: int, device: torch.device, reporter: Reporter
) -> Neighbours:
    """`knn` as the settings ask for it, within their memory.

    Raises:
        ConfigError: FAISS is asked for and is not installed.
        DataError: A feature that is not a finite number.
        MemoryLimitError: The neighbours do not fit.
    """
    count, dim = features.shape
    limit, above = memory_limit(settings), settings.search.approximate_above
    size = 40 * count * k  # indices and similarities, once more while they are put in order
    require_memory(size, limit, f"{k} neighbours of {count:,} images", "Raise memory_limit_gb")
    if above is not None and count > above:
        neighbours, recall = approximate_knn(features, k)
        reporter.note(f"approximate search: {100 * recall:.1f} % of the true {k} neighbours found")
        return neighbours
    chosen = choose_backend(settings.search.backend, device)
    scratch = block_bytes(limit)
    what = f"{k} neighbours of {count:,} images by {chosen}"
    tell_estimate(what, 2.0 * count**2 * dim, size + scratch, device, reporter)
    return knn(features, k, backend=settings.search.backend, device=device, block_bytes=scratch)


def model_card(settings: Settings, dataset: Dataset, stage: str, epoch: int) -> ModelCard:
    """What a model file of this run says about itself after ``epoch`` epochs."""
    return ModelCard(
        dataset=dataset.name,
        stage=stage,
        epoch=epoch,
        arch=settings.model.arch,
        pooling=settings.model.pooling,
        height=settings.data.height,
        width=settings.data.width,
    )
