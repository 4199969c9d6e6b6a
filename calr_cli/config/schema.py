"""The single list of settings: name, type, range, default, meaning and source of each.

The word in brackets that ends a meaning says where the value comes from: ``paper`` (arXiv 2403.16450),
``release`` (the authors' program), ``field`` (usual in re-identification) or ``ours`` (chosen here;
docs/method.md says why).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError


def setting(default: Any, meaning: str, **limits: float) -> Any:
    """A setting with its default, its meaning (with unit and source) and its limits (ge, gt, le, lt)."""
    return Field(default=default, description=meaning, **limits)  # type: ignore[call-overload]


def bounded_by(other: str, *, above: bool = False) -> AfterValidator:
    """A check that a setting is not above, or not below, ``other``, declared earlier in the same section.

    A check on the field, unlike a check on the section, still runs if a third setting is wrong, so that all
    problems are found at once.
    """

    def check(value: float, info: ValidationInfo) -> float:
        limit = info.data.get(other)
        if limit is not None and (value < limit if above else value > limit):
            relation = "below" if above else "above"
            raise PydanticCustomError(
                "order", "must not be {relation}", {"relation": relation, "other": other}
            )
        return value

    return AfterValidator(check)


def _absolute(path: str | None) -> str | None:
    """A run keeps the path, and may be resumed from another folder."""
    return None if path is None else str(Path(path).expanduser().absolute())


def _not_one(value: int) -> int:
    if value == 1:
        raise PydanticCustomError("one", "must be 0 or at least 2: one image has no variance")
    return value


NumInstances = Annotated[int, bounded_by("batch_size")]
K2 = Annotated[int, bounded_by("k1")]


class Section(BaseModel):
    """The base of every section: it accepts no unknown settings and cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Data(Section):
    """Which images, and how they are read."""

    dataset: str = setting("synthetic", "name of a prepared dataset [ours]")
    height: int = setting(256, "height images are resized to, pixels [field]", ge=32)
    width: int = setting(128, "width images are resized to, pixels [field]", ge=32)
    workers: int = setting(4, "threads that decode images [ours]", ge=1)
    cache: Literal["disk", "ram", "off"] = setting(
        "disk",
        "where decoded images are kept: on disk for later runs too, in memory, or nowhere [ours]",
    )


class Model(Section):
    """The network that turns an image into a feature."""

    arch: Literal[
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnet_ibn50a",
        "resnet_ibn101a",
        "mobilenet_v2",
    ] = setting("resnet50", "backbone [release]")
    pooling: Literal["gem", "avg"] = setting(
        "gem", "pooling of the feature map: generalised mean or average [release]"
    )
    pretrained: str = setting(
        "imagenet", "weights to start from: imagenet, none, or the path of a file [release]"
    )


class Augment(Section):
    """Random changes to training images."""

    flip_probability: float = setting(0.5, "probability of a horizontal flip [release]", ge=0, le=1)
    padding: int = setting(10, "black border added before the random crop, pixels [release]", ge=0)
    erasing_probability: float = setting(0.5, "probability of random erasing [release]", ge=0, le=1)
    erasing_area_min: float = setting(0.02, "smallest erased share of the image area [release]", gt=0, le=1)
    erasing_area_max: Annotated[float, bounded_by("erasing_area_min", above=True)] = setting(
        0.4, "largest erased share of the image area [release]", gt=0, le=1
    )
    erasing_aspect_min: float = setting(
        0.3, "smallest height to width ratio of the erased box; the largest is 3.33 [release]", gt=0, le=1
    )


class Memory(Section):
    """The cluster memory that the contrastive loss compares with."""

    temperature: float = setting(0.05, "similarities are divided by it [release]", gt=0)
    momentum: float = setting(0.1, "share of the OLD row that an update keeps [release]", ge=0, le=1)
    mode: Literal["all", "hard"] = setting(
        "all", "images of a batch that update a row: all, or the one least similar to it [release]"
    )


class Optimiser(Section):
    """Adam with a step-wise learning rate."""

    lr: float = setting(3.5e-4, "learning rate at the start [release]", gt=0)
    weight_decay: float = setting(5e-4, "weight decay [release]", ge=0)
    step_size: int = setting(20, "epochs between two cuts of the learning rate [release]", ge=1)
    gamma: float = setting(0.1, "factor of each cut of the learning rate [release]", gt=0, le=1)


class IntraClustering(Section):
    """Clusters within one camera: Jaccard distance, average linkage."""

    num_clusters: int | None = setting(None, "clusters per camera; null: as choice says [ours]", ge=2)
    choice: Literal["fifth", "silhouette"] = setting(
        "fifth",
        "clusters per camera: a fifth of its images, rounded down, or as many as have the best silhouette "
        "[ours]",
    )
    k1: int = setting(30, "nearest images that make a reciprocal set, itself counted [release]", ge=1)
    k2: K2 = setting(
        6, "nearest images whose sets are averaged, itself counted; not above k1 [release]", ge=1
    )


class Intra(Section):
    """Stage 1: the local labels."""

    network: Literal["per-camera", "shared"] = setting(
        "per-camera",
        "a network for each camera, or one for all with a memory for each, in as many batches [release]",
    )
    epochs: int = setting(20, "rounds of clustering and training per camera [release]", ge=1)
    iters: int = setting(100, "batches per epoch and camera [release]", ge=1)
    batch_size: int = setting(64, "images per batch, over all devices [release]", ge=2)
    num_instances: NumInstances = setting(
        4, "images of one cluster in a batch; not above batch_size [release]", ge=1
    )
    clustering: IntraClustering = IntraClustering()
    memory: Memory = Memory()
    optimiser: Optimiser = Optimiser()


class InterClustering(Section):
    """Clusters over all cameras: two-level Infomap on the nearest neighbours, or on Jaccard distances."""

    method: Literal["infomap", "jaccard", "dbscan"] = setting(
        "infomap",
        "Infomap on links to neighbours, Infomap on links by Jaccard distance, or DBSCAN on that [release]",
    )
    standardise: bool = setting(
        False, "shift and scale the features of each camera alike before neighbours are searched [ours]"
    )
    max_outliers: float = setting(
        0.25,
        "share of images that jaccard leaves out at most: what its smallest link follows from [ours]",
        ge=0,
        le=1,
    )
    k: int = setting(15, "nearest images linked to an image, itself counted [release]", ge=2)
    min_similarity: float = setting(
        0.5, "smallest inner product of two features that makes a link [release]", ge=0, le=1
    )
    min_cluster_size: int = setting(5, "images; smaller Infomap clusters become outliers [release]", ge=1)
    eps: float = setting(0.6, "largest Jaccard distance of DBSCAN's neighbours [field]", gt=0, lt=1)
    min_samples: int = setting(
        4, "images within eps, itself counted, that make one a core of DBSCAN [field]", ge=1
    )
    k1: int = setting(30, "nearest images that make a reciprocal set, for Jaccard distances [field]", ge=1)
    k2: K2 = setting(6, "nearest images whose sets are averaged, for the same; not above k1 [field]", ge=1)


class Refinement(Section):
    """Discarding same-camera companions of the pivot that are not in its local cluster."""

    enabled: bool = setting(True, "refine the global labels with the local ones [paper]")
    pivot: Literal["best", "last"] = setting(
        "best", "pivot of a cluster: highest score, or last in record order as released [ours]"
    )
    schedule: Literal["always", "cosine"] = setting(
        "always", "discard always, or with a probability that falls over the epochs [release]"
    )


class Camera(Section):
    """The camera classifier behind gradient reversal."""

    enabled: bool = setting(True, "train against a camera classifier [paper]")
    weight: float | None = setting(
        None, "factor of the camera loss; null: 1 / cameras for logits, 1 for reference [ours]", ge=0
    )
    alpha: float = setting(1.0, "factor of the reversed gradient [release]", ge=0)
    adversarial_epochs: int = setting(3, "first epochs that use the camera loss [release]", ge=0)
    loss: Literal["logits", "reference"] = setting(
        "logits", "ordinary cross-entropy, or the released arithmetic [ours]"
    )


class Weights(Section):
    """Cluster weights: clusters seen by more cameras count more."""

    mode: Literal["entropy", "off"] = setting(
        "entropy", "ln(1 + entropy of the cluster's cameras), or equal weights [release]"
    )
    start_epoch: int = setting(5, "first epoch that uses the weights, counted from 0 [release]", ge=0)
    floor: float = setting(0.0, "smallest weight of a cluster [ours]", ge=0)


class Proxies(Section):
    """A further contrastive loss, against the mean of each cluster in each of its cameras."""

    weight: float = setting(0.0, "factor of this loss; 0: none [release]", ge=0)
    temperature: float = setting(0.07, "similarities are divided by it [field]", gt=0)
    num_negatives: int = setting(50, "most similar means of other clusters compared with [field]", ge=1)


class Selection(Section):
    """Which model a run gives: decided without identities."""

    model: Literal["selected", "last"] = setting(
        "selected", "model.pth: of the epoch with the best criterion, or of the last epoch [ours]"
    )
    patience: int | None = setting(
        None, "epochs without a better criterion after which training stops; null: never [ours]", ge=1
    )
    oracle: bool = setting(
        False, "also keep oracle.pth, the model with the best mAP on the test set: not a fair choice [ours]"
    )


class Inter(Section):
    """Stage 2: one network over all cameras, trained on the refined labels."""

    start: Literal["pretrained", "intra"] = setting(
        "pretrained", "weights to start from: model.pretrained, or stage 1's shared network [release]"
    )
    epochs: int = setting(50, "rounds of clustering and training [release]", ge=1)
    iters: int = setting(400, "batches per epoch [release]", ge=1)
    batch_size: int = setting(256, "images per batch, over all devices [release]", ge=2)
    num_instances: NumInstances = setting(
        16, "images of one cluster in a batch; not above batch_size [release]", ge=1
    )
    clustering: InterClustering = InterClustering()
    refinement: Refinement = Refinement()
    camera: Camera = Camera()
    weights: Weights = Weights()
    proxies: Proxies = Proxies()
    selection: Selection = Selection()
    memory: Memory = Memory()
    optimiser: Optimiser = Optimiser()

    average: float = setting(
        0.0,
        "share of the old weights in a running average, which is the model then; 0: none [release]",
        ge=0,
        lt=1,
    )

    @property
    def uses_stage_1(self) -> bool:
        """Whether stage 2 uses any result of stage 1."""
        return self.refinement.enabled or self.start == "intra"


class Rerank(Section):
    """k-reciprocal re-ranking, used when it is asked for."""

    k1: int = setting(20, "nearest images that make a reciprocal set [field]", ge=1)
    k2: K2 = setting(6, "nearest images whose sets are averaged; not above k1 [field]", ge=1)
    lambda_value: float = setting(0.3, "share of the original distance [field]", ge=0, le=1)


class Search(Section):
    """How nearest neighbours are found."""

    backend: Literal["auto", "faiss", "torch"] = setting(
        "auto",
        "library that searches; auto: FAISS where it is installed and fast on the device, else torch [ours]",
    )
    approximate_above: int | None = setting(
        None, "images; a larger set is searched approximately, by FAISS's IVF; null: never [ours]", ge=1
    )


class Evaluation(Section):
    """Extraction of features (in training too) and retrieval."""

    batch_size: int = setting(256, "images per extraction step [field]", ge=1)
    monitor_every: int | None = setting(
        None,
        "epochs between two looks at the test set while training, 0: never; null: 10, own data never [field]",
        ge=0,
    )
    rerank: Rerank = Rerank()


class Settings(Section):
    """Everything that one run is told."""

    seed: int = setting(1, "start of every random number [field]", ge=0, le=2**32 - 1)
    memory_limit_gb: float | None = setting(
        None, "GB that one step may take on top of the features; null: what the machine has free [ours]", gt=0
    )
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "what the network computes in; auto: bf16 where that is faster [ours]"
    )
    compile: bool = setting(
        False,
        "torch compiles the network for training: fewer passes over memory, a minute at the start [ours]",
    )
    batch_norm_group_size: Annotated[int, AfterValidator(_not_one)] = setting(
        64, "images that share batch-norm statistics, worked on at a time; 0: the whole batch [release]", ge=0
    )
    plugin: Annotated[str | None, AfterValidator(_absolute)] = setting(
        None, "Python file with a loss or a global clustering of your own, see docs/extend.md [ours]"
    )
    deterministic: bool = setting(False, "only operations that give the same bits every time [ours]")
    data: Data = Data()
    search: Search = Search()
    model: Model = Model()
    augment: Augment = Augment()
    intra: Intra = Intra()
    inter: Inter = Inter()
    evaluation: Evaluation = Evaluation()
