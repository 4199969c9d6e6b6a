"""The names under which other programs save a network, and how their networks differ from calr's.

Names and differences were taken from the public sources of the programs. If a file does not record something,
such as the last stride, calr assumes the program's default.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

UNKNOWN = "unknown."
"""Prefix of the key of a part that no convention knows."""


@dataclass(frozen=True)
class Convention:
    """The names that a program gives to the parts of a network, and how the network computes.

    Attributes:
        programs: Names of the programs that use it.
        sign: Keys that every such file has.
        names: Prefixes of the program -> prefixes of `Encoder`. If there is an embedding, a linear layer
            before the batch norm, the two are ``neck.0.`` and ``neck.1.``.
        beside: Prefixes that ``names`` covers although these parts play no part in features.
        first_relu: Whether a ReLU follows the first batch norm.
        max_pooling: Arguments of the first pooling for `torch.nn.MaxPool2d`.
        last_stride: Stride of the last stage.
        last_relu: Whether a ReLU ends an embedding.
        no_exponent: Remark about average pooling, which calr assumes if the file has no exponent of GeM.
        differences: Differences between its computation and calr's, in words.
        remarks: Further differences that change figures, and facts that the file does not record, in words.
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
        """The name in `Encoder` of the tensor ``key``; None if it is no part of the network."""
        if key.startswith(self.beside):
            return None
        for theirs in sorted(self.names, key=len, reverse=True):
            if key.startswith(theirs):
                return self.names[theirs] + key.removeprefix(theirs)
        # What lies beside a known part, such as a second neck, may well take part in making features.
        parts = tuple(theirs.split(".")[0] for theirs in self.names)
        return UNKNOWN + key if key.startswith(parts) else None

    def key_of(self, name: str) -> str:
        """The key in a file of the tensor ``name`` of `Encoder`; the inverse of `name_of`."""
        for theirs, ours in sorted(self.names.items(), key=lambda pair: -len(pair[1])):
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
        return name.removeprefix(UNKNOWN)


def recognise(keys: Collection[str]) -> Convention | None:
    """The convention of a state dict with ``keys``; None if no convention fits."""
    return next((known for known in CONVENTIONS if all(key in keys for key in known.sign)), None)


def _numbered(prefix: str, first_stage: int) -> dict[str, str]:
    """The backbone as a sequence: convolution, batch norm, (ReLU,) pooling, four stages."""
    stages = {f"{prefix}.{first_stage + i}.": f"backbone.layer{i + 1}." for i in range(4)}
    return {f"{prefix}.0.": "backbone.conv1.", f"{prefix}.1.": "backbone.bn1.", **stages}


OF_RESNET, OF_VIT = "layer4.0.conv1.weight", "blocks.0.attn.qkv.weight"
HEADS = ("fc.", "classifier.", "head.", "mlp.", "projection_head.", "prototypes.", "pre_logits.")
"""Prefixes of what classifies, and of what only a pretraining without labels has."""

NO_RELU = "no ReLU after the first batch norm"
BILINEAR = "images are resized bicubically here, bilinearly there"

CALR = Convention(
    "calr",
    ("backbone.layer4.0.conv1.weight", "neck.running_mean"),
    {"backbone.": "backbone.", "pooling.": "pooling.", "neck.": "neck."},
)
CALR_MOBILENET = replace(CALR, sign=("backbone.features.0.0.weight", "neck.running_mean"))
CALR_VIT = replace(CALR, sign=(f"backbone.{OF_VIT}", "neck.running_mean"))

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

TORCHVISION = Convention("torchvision", (OF_RESNET,), {"": "backbone."}, beside=HEADS)
TORCHVISION_MOBILENET = replace(TORCHVISION, sign=("features.0.0.weight",))


def _within(programs: str, prefix: str, sign: str) -> Convention:
    """A pretraining whose network lies under ``prefix``, beside its heads and other networks."""
    beside = tuple(prefix + head for head in HEADS)
    return Convention(programs, (prefix + sign,), {prefix: "backbone."}, beside)


SELF_SUPERVISED = tuple(
    _within(programs, prefix, sign)
    for programs, prefix in (("DINO", "backbone."), ("MoCo", "encoder_q."), ("MoCo v3", "base_encoder."))
    for sign in (OF_RESNET, OF_VIT)
)
"""``backbone.`` beside heads: DINO, and with it TransReID-SSL, PersonViT and CION."""

TIMM_VIT = Convention("timm", (OF_VIT,), {"": "backbone."}, beside=HEADS)
TRANSREID_SSL_VIT = replace(
    TIMM_VIT,
    programs="TransReID-SSL",
    sign=(OF_VIT, "bottleneck.running_mean"),
    names={"": "backbone.", "bottleneck.": "neck."},
)
TRANSREID_VIT = Convention(
    "TransReID",
    (f"base.{OF_VIT}", "bottleneck.running_mean"),
    {"base.": "backbone.", "bottleneck.": "neck."},
    beside=("classifier.", *(f"base.{head}" for head in HEADS)),
    remarks=("the feature is that after the neck (TEST.NECK_FEAT is not in the file)", BILINEAR),
)

CONVENTIONS = (
    CALR,
    CALR_MOBILENET,
    CALR_VIT,
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
    TRANSREID_VIT,
    TRANSREID_SSL_VIT,
    TIMM_VIT,
    *SELF_SUPERVISED,
)
"""All known conventions; the first one whose sign is there applies."""

PROGRAMS = ", ".join(dict.fromkeys(known.programs for known in CONVENTIONS))
"""The programs of all conventions."""
