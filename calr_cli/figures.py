"""The figures of an epoch and of a choice of model, as training keeps them and everything else reads them.

In files they are JSON objects. A figure that may be unknown is null there; a part that a run does not have at
all, such as the quality of its labels where identities are unknown, is left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class LabelQuality:
    """How well pseudo labels agree with known identities; outliers count as singletons.

    Pair figures count pairs of images: precision is the share of same-label pairs that are of one
    identity, recall the share of same-identity pairs that have one label. BCubed figures average
    the same shares over images. NMI uses the arithmetic mean of the two entropies. Outliers are
    neither among the clusters nor among the singletons, clusters of one image.
    """

    pair_precision: float
    pair_recall: float
    pair_f: float
    bcubed_precision: float
    bcubed_recall: float
    bcubed_f: float
    nmi: float
    num_clusters: int
    num_singletons: int
    num_identities: int
    num_images: int


@dataclass(frozen=True)
class Seconds:
    """How long the steps of an epoch took."""

    extract: float
    cluster: float
    train: float = 0.0

    @property
    def total(self) -> float:
        """All steps together."""
        return self.extract + self.cluster + self.train

    def scaled(self, share: float) -> Seconds:
        """This share of every step."""
        return Seconds(self.extract * share, self.cluster * share, self.train * share)


@dataclass(frozen=True)
class IntraEpoch:
    """An epoch of stage 1, in one camera.

    Attributes:
        camera: Its number, from 0.
        epoch: From 0.
        images: Of the camera.
        clusters: That they were trained with.
        batch: Images in a batch.
        silhouette: Of the clusters.
        loss: Mean over the iterations.
        seconds: Of its steps.
        quality: Of the clusters, where identities are known.
    """

    camera: int
    epoch: int
    images: int
    clusters: int
    batch: int
    silhouette: float
    loss: float
    seconds: Seconds
    quality: LabelQuality | None = None


@dataclass(frozen=True)
class CameraSummary:
    """What stage 1 came to in one camera.

    Attributes:
        camera: Its number, from 0.
        images: Of the camera.
        clusters: Local labels.
        epoch: That they are of, where the epochs had to be chosen from.
        silhouette: Of the clusters; None where there were too few images for two.
        quality: Of the clusters, where identities are known.
    """

    camera: int
    images: int
    clusters: int
    epoch: int | None = None
    silhouette: float | None = None
    quality: LabelQuality | None = None


@dataclass(frozen=True)
class BeforeAndAfter:
    """The quality of global labels and of refined ones, on the same images."""

    before: LabelQuality
    after: LabelQuality


@dataclass(frozen=True)
class RefinementQuality:
    """What refinement made of the labels.

    Attributes:
        clustered: On all images in global clusters; a discarded image counts as a cluster of its own.
        kept: On the images that refinement leaves.
        discarded_right: Share of discarded images whose identity is not their pivot's; None: no image is.
    """

    clustered: BeforeAndAfter
    kept: BeforeAndAfter
    discarded_right: float | None


@dataclass(frozen=True)
class TestFigures:
    """Retrieval on the test set while training goes on, in percent."""

    __test__ = False  # to pytest, a class of this name holds tests

    mAP: float  # noqa: N815 - the field's word
    rank_1: float = field(metadata={"key": "Rank-1"})


@dataclass(frozen=True)
class InterEpoch:
    """An epoch of stage 2.

    Attributes:
        epoch: From 0.
        images: Of the training split.
        clusters: Global ones.
        outliers: Images in none.
        discarded: Images that refinement took out of their cluster.
        without_pivot: Clusters that have none.
        zero_weight_clusters: Clusters that count for nothing in the loss; None where all count alike.
        batch: Images in a batch.
        loss: Mean contrastive loss over the iterations.
        camera_loss: Mean loss of the camera classifier; None without one.
        criterion: Of the network that the epoch began with; knows no identities.
        seconds: Of its steps.
        quality: Of the labels, where identities are known.
        monitoring: Of the network after the epoch, where the test set was looked at.
    """

    epoch: int
    images: int
    clusters: int
    outliers: int
    discarded: int
    without_pivot: int
    zero_weight_clusters: int | None
    batch: int
    loss: float
    camera_loss: float | None
    criterion: float
    seconds: Seconds
    quality: RefinementQuality | None = None
    monitoring: TestFigures | None = None


EpochFigures = IntraEpoch | InterEpoch


def epochs_done(rows: Iterable[EpochFigures]) -> dict[int | None, int]:
    """Whole epochs of stage 1 by camera, or those of stage 2 under None."""
    done: dict[int | None, int] = {}
    for row in rows:
        camera = row.camera if isinstance(row, IntraEpoch) else None
        done[camera] = max(done.get(camera, 0), row.epoch + 1)
    return done


@dataclass(frozen=True)
class Best:
    """The best model so far by some score.

    Attributes:
        epoch: Epochs of training behind it.
        score: The score.
    """

    epoch: int
    score: float


@dataclass(frozen=True)
class Choice:
    """What is known of the models of a run of stage 2.

    Attributes:
        criteria: Epochs of training -> criterion of that model.
        selected: The best by it.
        oracle: The best by mAP on the test set, where that was asked for.
    """

    criteria: dict[str, float] = field(default_factory=dict)
    selected: Best | None = None
    oracle: Best | None = None


def to_json(figures: Any) -> dict[str, Any]:
    """The figures as JSON has them."""
    content: dict[str, Any] = {}
    for one in fields(figures):
        value = getattr(figures, one.name)
        if value is not None or one.default is not None:
            content[one.metadata.get("key", one.name)] = to_json(value) if is_dataclass(value) else value
    return content


def from_json(kind: type[T], content: Mapping[str, Any]) -> T:
    """What `to_json` gave. Keys that ``kind`` does not have are left out: a later version may have more.

    Raises:
        KeyError: A figure is missing.
        TypeError: A figure is no number, or a part is no object.
    """
    values = {}
    for name, key, types, is_optional in _layout(cast(Hashable, kind)):
        if key in content or not is_optional:
            values[name] = _value(content[key], types)
    return kind(**values)


def _value(value: Any, types: tuple[type[Any], ...]) -> Any:
    if value is None and NoneType in types:
        return None
    for each in types:
        if is_dataclass(each) and isinstance(value, Mapping):
            return from_json(each, value)
        if isinstance(value, (int, float) if each is float else each):
            return value
    raise TypeError(f"{value!r} is none of {types}")


def epoch_from_json(content: Mapping[str, Any]) -> EpochFigures:
    """The figures of an epoch of either stage; only stage 1 has them for a camera.

    Raises:
        KeyError: A figure is missing.
        TypeError: A part is no object.
    """
    return from_json(IntraEpoch, content) if "camera" in content else from_json(InterEpoch, content)


@cache
def _layout(kind: type[Any]) -> list[tuple[str, str, tuple[type[Any], ...], bool]]:
    """Of each field: its name, its key, what it may be, and whether it may be left out."""
    hints, found = get_type_hints(kind), []
    for one in fields(kind):
        hint = hints[one.name]
        types = get_args(hint) if isinstance(hint, UnionType) else (get_origin(hint) or hint,)
        has_default = one.default is not MISSING or one.default_factory is not MISSING
        found.append((one.name, one.metadata.get("key", one.name), types, has_default))
    return found
