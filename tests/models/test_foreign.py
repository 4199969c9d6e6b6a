from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from calr_cli.errors import WeightsError
from calr_cli.models.backbones import ARCHS
from calr_cli.models.encoder import Encoder
from calr_cli.models.foreign import ForeignWeights, build_foreign, describe, foreign_weights
from calr_cli.models.pretrained import read_weights
from calr_cli.models.vit import VITS
from tests.support.foreign import Network, Saved, cap, fast_reid, spcl, torchreid, transreid

PROGRAMS: dict[str, Callable[[Network], Saved]] = {
    "SpCL, GeM": spcl,
    "SpCL, average": lambda network: spcl(network, "avg"),
    "SpCL, embedding": lambda network: spcl(network, embedding=True),
    "CAP": cap,
    "TransReID": transreid,
    "torchreid": torchreid,
    "torchreid, fc512": lambda network: torchreid(network, embedding=True),
    "fast-reid": fast_reid,
    "fast-reid, average": lambda network: fast_reid(network, "avg"),
    "fast-reid, 2020": lambda network: fast_reid(network, head="bnneck"),
    "fast-reid, embedding": lambda network: fast_reid(network, head="embedding"),
    "fast-reid, non-local": lambda network: fast_reid(network, non_local=True),
    "fast-reid, no neck": lambda network: fast_reid(network, head="none"),
}

IMAGES = (
    torch.rand(3, 3, 70, 38, generator=torch.Generator().manual_seed(1)) * 4 - 2
)  # odd sizes within: where poolings differ, these features do


@pytest.fixture(scope="module")
def network() -> Network:
    return Network("resnet18")


def opened(content: object, tmp_path: Path) -> ForeignWeights:
    torch.save(content, tmp_path / "theirs.pth")
    return read_weights(tmp_path / "theirs.pth")


def built(weights: ForeignWeights) -> Encoder:
    return build_foreign(weights, weights.arch, weights.pooling or "avg", WeightsError)


@torch.no_grad()
def features(encoder: Encoder) -> Tensor:
    return encoder(IMAGES)


@pytest.mark.parametrize("program", PROGRAMS)
def test_features_are_those_of_the_program(network: Network, tmp_path: Path, program: str) -> None:
    saved = PROGRAMS[program](network)
    encoder = built(opened(saved.content, tmp_path))
    with torch.no_grad():
        expected = saved.features(IMAGES)
    assert encoder.feature_dim == expected.shape[1]
    torch.testing.assert_close(features(encoder), expected, rtol=1e-4, atol=1e-6)


def test_programs_do_compute_differently(network: Network) -> None:
    """Else the test above would pass for a loader that honours none of the differences."""
    with torch.no_grad():
        of = {
            name: program(network).features(IMAGES)
            for name, program in PROGRAMS.items()
            if name in ("SpCL, average", "CAP", "TransReID", "fast-reid, average", "torchreid")
        }
        of["no non-local"] = fast_reid(network).features(IMAGES)
        of["non-local"] = fast_reid(network, non_local=True).features(IMAGES)
    for name, theirs in of.items():
        others = [other for key, other in of.items() if key != name]
        assert all((theirs - other).abs().max() > 1e-3 for other in others)


@pytest.mark.parametrize("ibn", [False, True])
def test_blocks_of_three_convolutions(tmp_path: Path, ibn: bool) -> None:
    """Where the stride of the last stage stands depends on the blocks; TransReID's first layers on IBN."""
    network = Network("resnet50", ibn=ibn)
    for saved in (transreid(network, ibn=ibn), torchreid(network)):
        weights = opened(saved.content, tmp_path)
        with torch.no_grad():
            torch.testing.assert_close(features(built(weights)), saved.features(IMAGES), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_is_recognised(arch: str) -> None:
    with torch.device("meta"):  # names and shapes without numbers
        state = Encoder(arch, "cls" if arch in VITS else "gem").state_dict()
    assert foreign_weights(state, Path("f"), WeightsError).arch == arch


@pytest.mark.parametrize(("arch", "pooling"), [("resnet18", "avg"), ("mobilenet_v2", "gem")])
def test_a_bare_state_dict_of_our_own(tmp_path: Path, arch: str, pooling: str) -> None:
    encoder = Encoder(arch, pooling).eval()
    weights = opened(encoder.state_dict(), tmp_path)
    assert (weights.arch, weights.pooling) == (arch, pooling)
    assert torch.equal(features(built(weights)), features(encoder))


def test_a_bare_backbone_by_torchvisions_names(network: Network, tmp_path: Path) -> None:
    """As ImageNet files have it: nothing in them says how to pool."""
    weights = opened(network.resnet.state_dict(), tmp_path)
    assert weights.pooling is None
    with torch.no_grad():
        expected = normalize(network.feature_map(IMAGES).mean(dim=(2, 3)))
    torch.testing.assert_close(features(built(weights)), expected, rtol=1e-4, atol=1e-6)


NO_EXPONENT = "average pooling (no exponent of GeM in the file)"
NECK = "batch norm neck"
NO_RELU = "no ReLU after the first batch norm"
BILINEAR = "images are resized bicubically here, bilinearly there"

LINES = {
    "SpCL, GeM": f"SpCL/ClusterContrast/CALR, GeM with p = 2.5, {NECK}; not used: classifier (1), "
    "domain_classifier (2); the file says: epoch 50, best_mAP 0.831",
    "SpCL, embedding": "SpCL/ClusterContrast/CALR, GeM with p = 2.5, an embedding of 16 and its batch "
    "norm; not used: classifier (1), domain_classifier (2); the file says: epoch 50, best_mAP 0.831",
    "CAP": f"CAP, {NO_EXPONENT}, {NECK}; computed as there: {NO_RELU}",
    "TransReID": f"TransReID, {NO_EXPONENT}, {NECK}; computed as there: {NO_RELU}, first pooling 2 x 2; "
    "mind: bag of tricks has the same names, but pools 3 x 3 first, the feature is that after the neck "
    f"(TEST.NECK_FEAT is not in the file), {BILINEAR}; not used: classifier (1)",
    "torchreid": f"torchreid, {NO_EXPONENT}, no neck; computed as there: last stride 2; mind: features have "
    f"unit length here, any length there by default, {BILINEAR}; not used: classifier (2); the file says: "
    "epoch 60, rank1 0.9",
    "fast-reid, 2020": f"fast-reid of 2020, GeM with p = 2.5, {NECK}; mind: later versions of "
    "fast-reid do not pad the first pooling; not used: heads (1), pixel_mean (1); the file says: epoch 119",
    "fast-reid, average": "fast-reid, average pooling (no exponent of GeM in the file; fast-reid has a fixed "
    f"one for vehicles: --pooling gem), {NECK}; computed as there: first pooling 3 x 3 without padding; not "
    "used: heads (1), pixel_mean (1); the file says: epoch 119",
    "fast-reid, non-local": f"fast-reid, GeM with p = 2.5, {NECK}; computed as there: first pooling 3 x 3 "
    "without padding, 4 non-local blocks; not used: heads (1), pixel_mean (1); the file says: epoch 119",
}


@pytest.mark.parametrize("program", LINES)
def test_one_line_says_what_was_recognised(network: Network, tmp_path: Path, program: str) -> None:
    weights = opened(PROGRAMS[program](network).content, tmp_path)
    line = describe(weights, weights.arch, weights.pooling or "avg")
    assert line == f"{tmp_path / 'theirs.pth'} is resnet18 by the names of {LINES[program]}"


def test_the_pooling_can_be_overridden(network: Network, tmp_path: Path) -> None:
    with_exponent = opened(spcl(network).content, tmp_path)
    without = opened(spcl(network, "avg").content, tmp_path)
    assert "average pooling, not its own GeM with p = 2.5" in describe(with_exponent, "resnet18", "avg")
    assert "GeM with p = 3, batch norm neck" in describe(without, "resnet18", "gem")
    averaged = build_foreign(with_exponent, "resnet18", "avg", WeightsError)
    assert torch.equal(features(averaged), features(built(without)))
    of_three = Network("resnet18")
    of_three.p = torch.tensor([3.0])
    with torch.no_grad():
        expected = spcl(of_three).features(IMAGES)
    torch.testing.assert_close(features(build_foreign(without, "resnet18", "gem", WeightsError)), expected)


def test_non_local_blocks_without_an_exponent_mean_gem(network: Network, tmp_path: Path) -> None:
    """fast-reid's AGW pools with a fixed exponent of 3, which no key tells."""
    assert opened(fast_reid(network, "avg", non_local=True).content, tmp_path).pooling == "gem"
    assert opened(fast_reid(network, "avg").content, tmp_path).pooling == "avg"


def refusal(content: object, tmp_path: Path, arch: str | None = None) -> list[str]:
    def load() -> None:
        weights = opened(content, tmp_path)
        build_foreign(weights, arch or weights.arch, weights.pooling or "avg", WeightsError)

    with pytest.raises(WeightsError) as error:
        load()
    return [line.replace(str(tmp_path / "theirs.pth"), "FILE") for line in error.value.lines()]


def test_another_architecture_is_refused_with_the_keys(network: Network, tmp_path: Path) -> None:
    (line,) = refusal(spcl(network).content, tmp_path, "resnet_ibn50a")
    assert line.startswith("FILE does not fit resnet_ibn50a: missing keys (215): base.4.0.bn1.IN.weight, ")
    assert "; unexpected keys (30): base.4.0.bn1.weight, base.4.0.bn1.bias, " in line
    assert line.endswith(". It looks like resnet18: give -a resnet18, or another file")


def test_missing_and_left_over_keys_are_listed(network: Network, tmp_path: Path) -> None:
    state = dict(spcl(network).content["state_dict"])
    del state["module.base.1.weight"], state["module.feat_bn.running_var"]
    state["module.base.4.0.se.weight"] = state["module.feat_bn2.weight"] = torch.rand(3)
    state["module.base.0.weight"] = torch.rand(64, 3, 3, 3)
    assert refusal(state, tmp_path) == [
        "FILE does not fit resnet18: missing keys (2): base.1.weight, feat_bn.running_var; unexpected "
        "keys (2): "
        "base.4.0.se.weight, feat_bn2.weight; keys of another shape (1): base.0.weight (64, 3, 3, 3) "
        "instead of "
        "(64, 3, 7, 7). Choose the architecture of that file with -a, or another file",
    ]


@pytest.mark.parametrize("missing", ["layer2.1", "layer4"])
def test_layers_of_no_architecture(network: Network, tmp_path: Path, missing: str) -> None:
    state = {key: value for key, value in network.backbone().items() if not key.startswith(missing)}
    (line,) = refusal(state, tmp_path)
    assert line.startswith("FILE is no network that calr recognises; its keys: conv1.weight, ")


def test_what_is_not_recognised_gives_the_list_of_what_is(tmp_path: Path) -> None:
    transformer = {"base.cls_token": torch.rand(1), "base.blocks.0.norm1.weight": torch.rand(1)}
    assert refusal(transformer, tmp_path) == [
        "FILE is no network that calr recognises; its keys: base.cls_token, base.blocks.0.norm1.weight. "
        "Known are resnet18, resnet34, resnet50, resnet101, resnet152, resnet_ibn50a, resnet_ibn101a, "
        "mobilenet_v2, resnet_tiny, vit_small, vit_base, vit_small_ics, by the names of calr, "
        "SpCL/ClusterContrast/CALR, CAP, bag of tricks, "
        "TransReID, fast-reid, fast-reid of 2020, torchreid, torchvision, TransReID-SSL, timm, DINO, "
        "MoCo, MoCo v3"
    ]


def test_other_pixel_statistics_are_taken_if_they_are_some(network: Network, tmp_path: Path) -> None:
    content = fast_reid(network).content
    state = content["model"] | {"pixel_std": torch.full((1, 3, 1, 1), 127.5)}
    weights = opened({"model": state}, tmp_path)
    statistics = "mean 0.485 0.456 0.406, std 0.5 0.5 0.5"
    assert str(built(weights).statistics) == statistics
    assert f"; pixels normalised by: {statistics}; " in describe(weights, "resnet18", "gem")
    for impossible in (torch.zeros(3), torch.ones(2), torch.full((3,), float("nan"))):
        assert refusal({"model": state | {"pixel_std": impossible}}, tmp_path) == [
            "FILE has a pixel_mean or pixel_std that is not three numbers, or not above 0"
        ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base.4.0.conv1.weight", torch.tensor(1.0)),
        ("gap.p", torch.rand(2)),
        ("gap.p", torch.rand(0)),
        ("feat.weight", torch.rand(7)),
        ("feat.weight", torch.rand(7, 0)),
        ("feat.weight", torch.rand(7, 3)),
        ("feat_bn.running_mean", torch.rand(())),
        ("pixel_mean", torch.rand(2)),
    ],
)
def test_impossible_shapes_are_refused(network: Network, tmp_path: Path, key: str, value: Tensor) -> None:
    content = spcl(network, embedding=key == "feat.weight").content
    assert refusal({"state_dict": content["state_dict"] | {f"module.{key}": value}}, tmp_path)
