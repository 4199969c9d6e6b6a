"""The names under which other programs save a network, and how their networks differ from calr's.

Names and differences are those of the programs' public sources. What no file says, such as the last stride,
is taken as the program does by default.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

UNKNOWN = "unknown."
"""What stands before the key of a part that no convention knows."""


@dataclass(frozen=True)
class Convention:
    """How a program names the parts of a network, and how it computes.

    Attributes:
        programs: Which use it.
        sign: Keys that are in every such file.
        names: Its prefixes -> those of `Encoder`. An embedding, a linear layer before the batch norm, makes
            them ``neck.0.`` and ``neck.1.``.
        beside: Prefixes of what plays no part in features, where ``names`` seem to say it does.
        first_relu: Whether a ReLU follows the first batch norm.
        max_pooling: The first pooling, as `torch.nn.MaxPool2d` takes it.
        last_stride: Of the last stage.
        last_relu: Whether a ReLU ends an embedding.
        no_exponent: What to say of average pooling, which is taken where the file has no exponent of GeM.
        differences: How it computes otherwise than calr, in words.
        remarks: What changes figures and is not done as there, or is not known from the file.
    """

    programs: str
    sign: tuple[str, ...]
    names: Mapping[str, str]
    beside: tuple[str, ...] = ()
    first_relu: bool = True
    max_pooling: Mapping[str, Any] = field(
        default_factory=lambda: {"kernel_size": 3, "stride": 2, "padding": 1}
    )
    last_stride: int = 1
    last_relu: bool = False
    no_exponent: str = "no exponent of GeM in the file"
    differences: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def name_of(self, key: str) -> str | None:
        """What `Encoder` calls the tensor ``key``; None for one that is no part of the network."""
        if key.startswith(self.beside):
            return None
        for theirs in sorted(self.names, key=len, reverse=True):
            if key.startswith(theirs):
                return self.names[theirs] + key.removeprefix(theirs)
        # What lies beside a known part, such as a second neck, may well take part in making features.
        parts = tuple(theirs.split(".")[0] for theirs in self.names)
        return UNKNOWN + key if key.startswith(parts) else None

    def key_of(self, name: str) -> str:
        """What a file calls the tensor ``name`` of `Encoder`; the inverse of `name_of`."""
        for theirs, ours in sorted(self.names.items(), key=lambda pair: -len(pair[1])):
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
        return name.removeprefix(UNKNOWN)


def recognise(keys: Collection[str]) -> Convention | None:
    """The convention by which a state dict with ``keys`` was saved, None for one that is not known."""
    return next((known for known in CONVENTIONS if all(key in keys for key in known.sign)), None)


def _numbered(prefix: str, first_stage: int) -> dict[str, str]:
    """The backbone as a sequence: convolution, batch norm, (ReLU,) pooling, four stages."""
    stages = {f"{prefix}.{first_stage + i}.": f"backbone.layer{i + 1}." for i in range(4)}
    return {f"{prefix}.0.": "backbone.conv1.", f"{prefix}.1.": "backbone.bn1.", **stages}


NO_RELU = "no ReLU after the first batch norm"
BILINEAR = "images are resized bicubically here, bilinearly there"

CALR = Convention(
    "calr",
    ("backbone.layer4.0.conv1.weight", "neck.running_mean"),
    {"backbone.": "backbone.", "pooling.": "pooling.", "neck.": "neck."},
)
CALR_MOBILENET = replace(CALR, sign=("backbone.features.0.0.weight", "neck.running_mean"))

SPCL = Convention(
    "SpCL/ClusterContrast/CALR",
    ("base.4.0.conv1.weight",),
    {**_numbered("base", 4), "gap.": "pooling.", "feat_bn.": "neck."},
)
SPCL_EMBEDDING = replace(
    SPCL, sign=(*SPCL.sign, "feat.weight"), names={**SPCL.names, "feat.": "neck.0.", "feat_bn.": "neck.1."}
)

CAP = Convention(
    "CAP",
    ("resnet_conv.3.0.conv1.weight",),
    {**_numbered("resnet_conv", 3), "global_pool.": "pooling.", "bottleneck.": "neck."},
    first_relu=False,
    differences=(NO_RELU,),
)

BAG_OF_TRICKS_IBN = Convention(
    "bag of tricks",
    ("base.layer4.0.conv1.weight", "base.layer1.0.bn1.IN.weight"),
    {"base.": "backbone.", "gap.": "pooling.", "bottleneck.": "neck."},
    beside=("base.fc.",),
    remarks=("the feature is that after the neck (TEST.NECK_FEAT is not in the file)", BILINEAR),
)
TRANSREID = replace(
    BAG_OF_TRICKS_IBN,
    programs="TransReID",
    sign=("base.layer4.0.conv1.weight",),
    first_relu=False,
    max_pooling={"kernel_size": 2},
    differences=(NO_RELU, "first pooling 2 x 2"),
    remarks=("bag of tricks has the same names, but pools 3 x 3 first", *BAG_OF_TRICKS_IBN.remarks),
)

FAST_REID = Convention(
    "fast-reid",
    ("backbone.layer4.0.conv1.weight", "heads.bottleneck.0.running_mean"),
    {"backbone.": "backbone.", "heads.pool_layer.": "pooling.", "heads.bottleneck.0.": "neck."},
    beside=("heads.weight", "heads.classifier.", "heads.cls_layer."),
    max_pooling={"kernel_size": 3, "stride": 2, "ceil_mode": True},
    no_exponent="no exponent of GeM in the file; fast-reid has a fixed one for vehicles: --pooling gem",
    differences=("first pooling 3 x 3 without padding",),
)
FAST_REID_EMBEDDING = replace(
    FAST_REID,
    sign=("backbone.layer4.0.conv1.weight", "heads.bottleneck.1.running_mean"),
    names={**FAST_REID.names, "heads.bottleneck.0.": "neck.0.", "heads.bottleneck.1.": "neck.1."},
)
FAST_REID_NO_NECK = replace(FAST_REID, sign=("backbone.layer4.0.conv1.weight", "heads.weight"))
FAST_REID_2020 = replace(
    FAST_REID,
    programs="fast-reid of 2020",
    sign=("backbone.layer4.0.conv1.weight", "heads.bnneck.running_mean"),
    names={"backbone.": "backbone.", "heads.pool_layer.": "pooling.", "heads.bnneck.": "neck."},
    max_pooling=SPCL.max_pooling,
    differences=(),
    remarks=("later versions of fast-reid do not pad the first pooling",),
)

TORCHREID = Convention(
    "torchreid",
    ("layer4.0.conv1.weight", "classifier.weight"),
    {"": "backbone."},
    beside=("classifier.",),
    last_stride=2,
    differences=("last stride 2",),
    remarks=("features have unit length here, any length there by default", BILINEAR),
)
TORCHREID_EMBEDDING = replace(
    TORCHREID,
    sign=(*TORCHREID.sign, "fc.0.weight", "fc.1.running_mean"),
    names={"": "backbone.", "fc.0.": "neck.0.", "fc.1.": "neck.1."},
    last_stride=1,
    last_relu=True,
    differences=("a ReLU after the neck",),
)

TORCHVISION = Convention(
    "torchvision", ("layer4.0.conv1.weight",), {"": "backbone."}, beside=("fc.", "classifier.")
)
TORCHVISION_MOBILENET = replace(TORCHVISION, sign=("features.0.0.weight",))

CONVENTIONS = (
    CALR,
    CALR_MOBILENET,
    SPCL_EMBEDDING,
    SPCL,
    CAP,
    BAG_OF_TRICKS_IBN,
    TRANSREID,
    FAST_REID_EMBEDDING,
    FAST_REID_2020,
    FAST_REID,
    FAST_REID_NO_NECK,
    TORCHREID_EMBEDDING,
    TORCHREID,
    TORCHVISION,
    TORCHVISION_MOBILENET,
)
"""All that are known; the first whose sign is there is taken."""

PROGRAMS = ", ".join(dict.fromkeys(known.programs for known in CONVENTIONS))
"""The programs of all of them."""
