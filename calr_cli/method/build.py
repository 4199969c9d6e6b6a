"""From settings to the objects that the stages work with.

Algorithms take arrays and numbers. The stages read the numbers of their own section, `clusters` and
`local_clusters` those of the clusterings; every object with weights, files or memory behind it is made here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from calr_cli.allocation import require_memory
from calr_cli.config.schema import Inter, Intra, Optimiser, Settings
from calr_cli.data.augment import Augmentation
from calr_cli.data.loaders import PixelSource
from calr_cli.data.store import open_pixels
from calr_cli.distances.knn import approximate_knn, choose_backend, knn
from calr_cli.distributed import collectives
from calr_cli.errors import CheckpointError, ConfigError
from calr_cli.events import Reporter
from calr_cli.extraction import extract_features
from calr_cli.method.estimates import block_bytes, memory_limit, tell_estimate
from calr_cli.method.plugin import OwnLoss, load_plugin
from calr_cli.models.batch_norm import synchronise_batch_norms
from calr_cli.models.camera_classifier import CameraClassifier
from calr_cli.models.compiling import compile_backbone
from calr_cli.models.encoder import Encoder
from calr_cli.models.pretrained import load_pretrained
from calr_cli.training.checkpoint import ModelCard, load_model
from calr_cli.training.cluster_contrast import ClusterContrast
from calr_cli.training.networks import Networks
from calr_cli.training.objective import CameraAlignment, Loss
from calr_cli.training.optim import build_optimiser
from calr_cli.training.precision import choose_precision
from calr_cli.training.proxies import CameraProxies
from calr_cli.training.reproducibility import seed_torch
from calr_cli.types import FloatArray, ImageSet, Neighbours


def check_start(settings: Settings) -> str:
    """Load the weights that training will start from, before anything is written; say which in one line.

    Raises:
        WeightsError: They are not there or do not fit.
    """
    return load_pretrained(Encoder(settings.model.arch, settings.model.pooling), settings.model.pretrained)


def check_start_model(settings: Settings, local_labels: Path | None) -> None:
    """Raise if stage 2 is to start from a network of stage 1 and there neither is one nor will be.

    Args:
        settings: Settings of the run.
        local_labels: The file of which the run has a network; None: stage 1 is still to come.

    Raises:
        ConfigError: That stage 1 will give none.
        CheckpointError: The run has none, or another network than the one asked for.
    """
    if settings.inter.start != "intra":
        return
    if local_labels is None:
        if settings.intra.network != "shared":
            raise ConfigError(
                "inter.start = intra: with intra.network = per-camera stage 1 gives no network to start from",
                "Give --set intra.network=shared (or --recipe plus), or --set inter.start=pretrained",
            )
        return
    file = local_labels.with_name("model.pth")
    if not file.exists():
        raise CheckpointError(
            f"inter.start = intra: there is no network of stage 1 beside {local_labels}",
            "Make both with intra.network = shared (--recipe plus), or --set inter.start=pretrained",
        )
    card, wanted = load_model(file)[1], settings.model
    if card.stage != "intra":
        raise CheckpointError(
            f"inter.start = intra: {file} is a model of stage 2", "Give --local-labels of the run of stage 1"
        )
    if (card.arch, card.pooling) != (wanted.arch, wanted.pooling):
        raise CheckpointError(
            f"{file} is a {card.arch} with {card.pooling} pooling, not a {wanted.arch} with {wanted.pooling}",
            f"Give -a {card.arch} --pooling {card.pooling}, or run stage 1 again",
        )


def build_encoder(settings: Settings, stage: str, device: torch.device) -> Encoder:
    """A new encoder with the pretrained weights asked for, to be trained.

    Raises:
        WeightsError: The weights are not there or do not fit.
        ConfigError: The device cannot compute, or torch not compile, what the settings ask for.
    """
    seed_torch(settings.seed, stage, "weights")
    encoder = Encoder(settings.model.arch, settings.model.pooling)
    load_pretrained(encoder, settings.model.pretrained)
    encoder = ready(settings, encoder, device)
    if settings.compile:
        if settings.batch_norm_group_size == 0 and collectives.world_size() > 1:
            raise ConfigError(
                "compile: batch norms over several devices cannot be compiled",
                "Give --set compile=false, or a batch_norm_group_size above 0",
            )
        compile_backbone(encoder)
    return encoder


def ready(settings: Settings, encoder: Encoder, device: torch.device) -> Encoder:
    """The encoder on its device, told what to compute in and whose statistics its batch norms take.

    Raises:
        ConfigError: The device cannot compute in what the settings ask for.
    """
    encoder.precision = choose_precision(settings.precision, device)
    if settings.batch_norm_group_size == 0 and collectives.world_size() > 1:
        synchronise_batch_norms(encoder)
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
    if settings.batch_norm_group_size == 0 and collectives.world_size() > 1:
        synchronise_batch_norms(classifier)
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


def build_losses(settings: Settings, stage: Intra | Inter) -> dict[str, Loss]:
    """The contrastive losses of a stage by name: the memory's, of stage 2 the proxies' and a plugin's.

    Raises:
        ConfigError: A plugin that cannot be loaded.
    """
    memory, within_cameras = stage.memory, isinstance(stage, Intra) and stage.network == "shared"
    losses: dict[str, Loss] = {
        "memory": ClusterContrast(memory.temperature, memory.momentum, memory.mode, within_cameras)
    }
    if isinstance(stage, Inter):
        proxies, own = stage.proxies, load_plugin(settings.plugin).loss
        if proxies.weight:
            losses["proxies"] = CameraProxies(
                proxies.weight, memory.momentum, proxies.temperature, proxies.num_negatives
            )
        if own is not None and settings.plugin is not None:
            losses["plugin"] = OwnLoss(own, settings.plugin)
    return losses


def build_networks(
    optimiser: Optimiser, encoder: Encoder, alignment: CameraAlignment | None = None, average: float = 0.0
) -> Networks:
    """Networks to be trained; ``average``: share of the old weights in a running average, or 0."""
    classifier = None if alignment is None else alignment.classifier
    heads = [] if classifier is None else list(classifier.parameters())
    parameters = [*encoder.parameters(), *heads]
    return Networks(
        encoder,
        build_optimiser(parameters, lr=optimiser.lr, weight_decay=optimiser.weight_decay),
        classifier,
        build_average(encoder, average) if average else None,
    )


def build_average(encoder: Encoder, share: float) -> AveragedModel:
    """A running average of the encoder's weights and statistics that keeps ``share`` of itself in a step.

    It begins with what they are after the first step.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", NIPS 2017.
    """
    return AveragedModel(encoder, multi_avg_fn=get_ema_multi_avg_fn(share), use_buffers=True)


def build_pixels(settings: Settings, images: ImageSet, reporter: Reporter) -> PixelSource:
    """The images as the network takes them, kept where the settings say.

    Raises:
        DataError: An image that cannot be read.
    """
    data = settings.data
    return open_pixels(
        images,
        height=data.height,
        width=data.width,
        workers=data.workers,
        cache=data.cache,
        reporter=reporter,
    )


def build_extractor(settings: Settings, reporter: Reporter) -> Callable[..., FloatArray]:
    """`extract_features` with the run's batch size filled in."""
    return partial(extract_features, batch_size=settings.evaluation.batch_size, reporter=reporter)


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


def model_card(settings: Settings, stage: str, epoch: int, images: ImageSet) -> ModelCard:
    """What a model file of this run says about itself after ``epoch`` epochs on ``images``."""
    return ModelCard(
        dataset=settings.data.dataset,
        stage=stage,
        epoch=epoch,
        arch=settings.model.arch,
        pooling=settings.model.pooling,
        height=settings.data.height,
        width=settings.data.width,
        images=images.fingerprint,
    )
