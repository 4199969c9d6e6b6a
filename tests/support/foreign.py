"""ResNets as other programs compute and save them, written out from their public sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, conv2d, linear, max_pool2d, normalize, relu

from calr_cli.models import backbones
from calr_cli.models.ibn import with_ibn_a

State = dict[str, Tensor]
STAGES = ("layer1", "layer2", "layer3", "layer4")


class Network:
    """The tensors that every program has under names of its own.

    Attributes:
        resnet: With statistics as after some training, in evaluation mode.
        dim: Channels of its feature map.
        p: Exponent of GeM.
        neck: Batch norm over its features.
        embedding: Weight and bias to 16 dimensions, and ``small_neck`` over them.
    """

    def __init__(self, arch: str, *, ibn: bool = False) -> None:
        torch.manual_seed(3)
        resnet = backbones.get_model(arch, weights=None)  # narrow where the encoder is
        self.resnet: Any = (with_ibn_a(resnet) if ibn else resnet).eval()
        for module in self.resnet.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
        self.dim = int(self.resnet.fc.in_features)
        self.p = torch.tensor([2.5])
        self.neck = self._batch_norm(self.dim)
        self.embedding = {"weight": torch.randn(16, self.dim), "bias": torch.randn(16)}
        self.small_neck = self._batch_norm(16)
        self.non_local = {stage: [self._non_local(stage) for _ in range(2)] for stage in (2, 3)}

    @staticmethod
    def _batch_norm(dim: int) -> State:
        return {
            "weight": torch.rand(dim) + 0.5,
            "bias": torch.zeros(dim),
            "running_mean": torch.randn(dim) / 10,
            "running_var": torch.rand(dim) + 0.5,
            "num_batches_tracked": torch.tensor(7),
        }

    def _non_local(self, stage: int) -> State:
        dim = self.dim * 2**stage // 16
        return {
            **{f"{name}.weight": torch.randn(1, dim, 1, 1) / dim for name in ("g", "theta", "phi")},
            **{f"{name}.bias": torch.randn(1) for name in ("g", "theta", "phi")},
            "W.0.weight": torch.randn(dim, 1, 1, 1),
            "W.0.bias": torch.randn(dim),
            **under("W.1", self._batch_norm(dim)),
        }

    def backbone(self) -> State:
        """Its tensors by torchvision's names."""
        return {key: value for key, value in self.resnet.state_dict().items() if not key.startswith("fc.")}

    def feature_map(
        self,
        images: Tensor,
        *,
        last_stride: int = 1,
        first_relu: bool = True,
        first_pooling: Callable[[Tensor], Tensor] = lambda x: max_pool2d(x, 3, 2, 1),
        non_local: bool = False,
    ) -> Tensor:
        """(B, dim, H, W) of ``images`` (B, 3, H, W)."""
        block = self.resnet.layer4[0]
        strided = block.conv2 if hasattr(block, "conv3") else block.conv1
        strided.stride = block.downsample[0].stride = (last_stride, last_stride)
        x = self.resnet.bn1(self.resnet.conv1(images))
        x = first_pooling(relu(x) if first_relu else x)
        for number, stage in enumerate(STAGES, 1):
            blocks = list(getattr(self.resnet, stage))
            followers = self.non_local.get(number, []) if non_local else []
            for place, block in enumerate(blocks):
                x = block(x)
                if (follower := place - len(blocks) + len(followers)) >= 0:
                    x = self._with_all_positions(x, followers[follower])
        return x

    @staticmethod
    def _with_all_positions(x: Tensor, tensors: State) -> Tensor:
        """The dot-product form, position by position."""

        def compared(name: str) -> Tensor:
            return conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"]).flatten(2).squeeze(1)

        similarity = compared("theta")[:, :, None] * compared("phi")[:, None]  # (B, HW, HW)
        mixed = (similarity / similarity.shape[2] @ compared("g")[:, :, None]).view(len(x), 1, *x.shape[2:])
        neck = {key.removeprefix("W.1."): value for key, value in tensors.items()}
        return x + normed(conv2d(mixed, tensors["W.0.weight"], tensors["W.0.bias"]), neck)

    def gem(self, x: Tensor) -> Tensor:
        """(B, dim) of a feature map."""
        return adaptive_avg_pool2d(x.clamp(min=1e-6) ** self.p, 1).flatten(1) ** (1 / self.p)


def average(x: Tensor) -> Tensor:
    return adaptive_avg_pool2d(x, 1).flatten(1)


def normed(x: Tensor, neck: Mapping[str, Tensor]) -> Tensor:
    return batch_norm(x, neck["running_mean"], neck["running_var"], neck["weight"], neck["bias"])


def under(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    return {f"{prefix}.{key}": value for key, value in tensors.items()}


def in_sequence(prefix: str, backbone: Mapping[str, Tensor], order: list[str]) -> State:
    """The backbone as `torch.nn.Sequential` names it; ``order`` is that of the layers."""
    places = {layer: f"{prefix}.{place}" for place, layer in enumerate(order)}
    return {f"{places[key.split('.')[0]]}.{key.partition('.')[2]}": value for key, value in backbone.items()}


@dataclass(frozen=True)
class Saved:
    """A file of another program.

    Attributes:
        content: What is given to `torch.save`.
        features: Images (B, 3, H, W), normalised -> unit-length features, as that program computes them.
    """

    content: dict[str, Any]
    features: Callable[[Tensor], Tensor]


def spcl(network: Network, pooling: str = "gem", *, embedding: bool = False) -> Saved:
    """SpCL, ClusterContrast and CALR: DataParallel, a sequence, the mAP as a number of numpy."""
    import numpy as np

    order = ["conv1", "bn1", "relu", "maxpool", *STAGES]
    state = in_sequence("base", network.backbone(), order) | {"classifier.weight": torch.rand(9, network.dim)}
    state |= {"domain_classifier.0.weight": torch.rand(4, 9), "domain_classifier.0.bias": torch.rand(4)}
    state |= {"gap.p": network.p} if pooling == "gem" else {}
    if embedding:
        state |= under("feat", network.embedding) | under("feat_bn", network.small_neck)
    else:
        state |= under("feat_bn", network.neck)

    def features(images: Tensor) -> Tensor:
        x = (network.gem if pooling == "gem" else average)(network.feature_map(images))
        if not embedding:
            return normalize(normed(x, network.neck))
        return normalize(normed(linear(x, **network.embedding), network.small_neck))

    return Saved({"state_dict": under("module", state), "epoch": 50, "best_mAP": np.float64(0.831)}, features)


def cap(network: Network) -> Saved:
    """CAP: a raw state dict of DataParallel, a sequence without the first ReLU."""
    state = in_sequence("resnet_conv", network.backbone(), ["conv1", "bn1", "maxpool", *STAGES])
    state |= under("bottleneck", network.neck)

    def features(images: Tensor) -> Tensor:
        return normalize(normed(average(network.feature_map(images, first_relu=False)), network.neck))

    return Saved(under("module", state), features)


def transreid(network: Network, *, ibn: bool = False) -> Saved:
    """The ResNet of TransReID; with IBN that of bag of tricks, which keeps the first ReLU."""
    state = under("base", network.backbone()) | under("bottleneck", network.neck)
    state |= {"classifier.weight": torch.rand(9, network.dim)}
    if ibn:
        state |= {"base.fc.weight": torch.rand(9, network.dim)}

    def features(images: Tensor) -> Tensor:
        if ibn:
            x = network.feature_map(images)
        else:
            x = network.feature_map(images, first_relu=False, first_pooling=lambda x: max_pool2d(x, 2))
        return normalize(normed(average(x), network.neck))

    return Saved(state, features)


def torchreid(network: Network, *, embedding: bool = False) -> Saved:
    """torchreid: last stride 2, no neck; resnet50_fc512: last stride 1, an embedding that ends in a ReLU."""
    state = network.backbone() | {"classifier.weight": torch.rand(9, 16), "classifier.bias": torch.rand(9)}
    if embedding:
        state |= under("fc.0", network.embedding) | under("fc.1", network.small_neck)

    def features(images: Tensor) -> Tensor:
        if not embedding:
            return normalize(average(network.feature_map(images, last_stride=2)))
        x = linear(average(network.feature_map(images)), **network.embedding)
        return normalize(relu(normed(x, network.small_neck)))

    optimiser = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [20, 40])
    content = {"state_dict": state, "epoch": 60, "rank1": 0.9, "optimizer": optimiser.state_dict()}
    return Saved(content | {"scheduler": schedule.state_dict()}, features)


def fast_reid(
    network: Network, pooling: str = "gem", *, head: str = "bottleneck", non_local: bool = False
) -> Saved:
    """fast-reid: ``head`` is ``bottleneck``, ``bnneck`` (of 2020), ``embedding`` or ``none``."""
    state = under("backbone", network.backbone()) | {"heads.weight": torch.rand(9, network.dim)}
    state |= {"pixel_mean": torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)}
    state |= {"heads.pool_layer.p": network.p} if pooling == "gem" else {}
    if non_local:
        for stage, blocks in network.non_local.items():
            for place, block in enumerate(blocks):
                state |= under(f"backbone.NL_{stage}.{place}", block)
    if head == "embedding":
        state["heads.bottleneck.0.weight"] = network.embedding["weight"][:, :, None, None]
        state |= under("heads.bottleneck.1", network.small_neck)
    elif head != "none":
        state |= under("heads.bnneck" if head == "bnneck" else "heads.bottleneck.0", network.neck)

    def features(images: Tensor) -> Tensor:
        def unpadded(x: Tensor) -> Tensor:
            return max_pool2d(x, 3, 2, ceil_mode=True)

        first = {} if head == "bnneck" else {"first_pooling": unpadded}
        x = network.feature_map(images, **first, non_local=non_local)
        x = (network.gem if pooling == "gem" else average)(x)
        if head == "embedding":
            x = normed(linear(x, network.embedding["weight"]), network.small_neck)
        elif head != "none":
            x = normed(x, network.neck)
        return normalize(x)

    return Saved({"model": state, "epoch": 119}, features)
