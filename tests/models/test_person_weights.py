"""Files of programs that pretrain on images of persons: what of them calr takes, says and refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calr_cli.data.augment import HALF, IMAGENET
from calr_cli.errors import WeightsError
from calr_cli.models.encoder import Encoder
from calr_cli.models.foreign import build_foreign, describe, describe_input
from calr_cli.models.pretrained import load_pretrained, read_weights
from calr_cli.models.vit import VITS, resampled
from calr_cli.training.checkpoint import ModelCard, save_model
from tests.support.pretraining import dino, moco, moco_v3, swav, under
from tests.support.small_vits import SMALL_VITS

IMAGES = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same layers, with fewer channels: these files have 22 million weights."""
    for arch, size in SMALL_VITS.items():
        monkeypatch.setitem(VITS, arch, size)


def pretrained(arch: str, height: int = 256, width: int = 128) -> dict[str, Tensor]:
    """The backbone of another network of that kind."""
    torch.manual_seed(7)
    pooling = "cls" if arch in VITS else "gem"
    return dict(Encoder(arch, pooling, height, width).backbone.state_dict())


def start(arch: str, content: object, tmp_path: Path) -> tuple[Encoder, str]:
    """A network that starts from a file with ``content``, and the line that says so."""
    torch.save(content, tmp_path / "theirs.pth")
    encoder = Encoder(arch, "cls" if arch in VITS else "gem", 64, 32)
    line = load_pretrained(encoder, str(tmp_path / "theirs.pth"))
    return encoder, line.replace(str(tmp_path / "theirs.pth"), "FILE")


LAYOUTS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "raw": (lambda state: state, " (backbone by the names of timm)"),
    "raw, DataParallel": (lambda state: under("module.", state), " (backbone by the names of timm)"),
    "DINO": (dino, " (backbone by the names of DINO); left out: head (2)"),
    "DINO, one process": (
        lambda state: dino(state, prefix="backbone.", head=""),
        " (backbone by the names of DINO); left out: head (2)",
    ),
    "a student alone": (
        lambda state: {"student": under("module.backbone.", state)},
        " (backbone by the names of DINO)",
    ),
    "heads by plain names": (
        lambda state: {"teacher": state | {"head.0.weight": torch.ones(2), "mlp.0.weight": torch.ones(2)}},
        " (backbone by the names of timm); left out: head (1), mlp (1)",
    ),
    "MoCo v3": (
        moco_v3,
        " (backbone by the names of MoCo v3); left out: base_encoder.head (1), momentum_encoder (151), "
        "predictor (1)",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vision_transformers_of_every_program(layout: str, tmp_path: Path) -> None:
    written, words = LAYOUTS[layout]
    state = pretrained("vit_small")
    encoder, line = start("vit_small", written(state), tmp_path)
    assert line == f"vit_small starts from FILE{words}"
    assert encoder.statistics == HALF
    own = encoder.backbone.state_dict()
    positions = own.pop("pos_embed")
    assert all(torch.equal(value, state[name]) for name, value in own.items())
    assert torch.equal(positions, resampled(state["pos_embed"], (16, 8), (4, 2)))


@pytest.mark.parametrize("arch", ["vit_base", "vit_small_ics"])
def test_other_sizes_and_stems(arch: str, tmp_path: Path) -> None:
    state = pretrained(arch)
    encoder, line = start(arch, dino(state), tmp_path)
    assert line == f"{arch} starts from FILE (backbone by the names of DINO); left out: head (2)"
    name = "patch_embed.proj.weight"
    assert torch.equal(encoder.backbone.state_dict()[name], state[name])


CONVOLUTIONS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "torchvision": (lambda state: state | {"fc.weight": torch.ones(1)}, "; left out: fc (1)"),
    "CION": (
        lambda state: {"teacher": under("module.backbone.", state)},
        " (backbone by the names of DINO)",
    ),
    "DINO": (dino, " (backbone by the names of DINO); left out: head (2)"),
    "MoCo": (
        moco,
        " (backbone by the names of MoCo); left out: encoder_q.fc (2), encoder_k (COUNT), queue (1), "
        "queue_ptr (1)",
    ),
    "MoCo v3": (
        moco_v3,
        " (backbone by the names of MoCo v3); left out: base_encoder.head (1), momentum_encoder (COUNT), "
        "predictor (1)",
    ),
    "SwAV": (swav, "; left out: projection_head (1), prototypes (1)"),
}


@pytest.mark.parametrize("layout", CONVOLUTIONS)
def test_resnets_of_every_program(layout: str, tmp_path: Path) -> None:
    written, words = CONVOLUTIONS[layout]
    state = pretrained("resnet18")
    encoder, line = start("resnet18", written(state), tmp_path)
    count = len(state) + (2 if layout == "MoCo" else 1)
    assert line == f"resnet18 starts from FILE{words.replace('COUNT', str(count))}"
    assert encoder.statistics == IMAGENET
    assert all(torch.equal(value, state[name]) for name, value in encoder.backbone.state_dict().items())


def test_ibn_resnets_of_a_teacher(tmp_path: Path) -> None:
    """CION has ResNet-50-IBN among its 32 models."""
    state = pretrained("resnet_ibn50a")
    encoder, line = start("resnet_ibn50a", dino(state), tmp_path)
    assert line == "resnet_ibn50a starts from FILE (backbone by the names of DINO); left out: head (2)"
    assert torch.equal(encoder.backbone.layer1[0].bn1.IN.weight, state["layer1.0.bn1.IN.weight"])


def test_a_square_grid_means_imagenet(tmp_path: Path) -> None:
    assert start("vit_small", pretrained("vit_small", 224, 224), tmp_path)[0].statistics == IMAGENET
    assert start("vit_small", pretrained("vit_small", 384, 128), tmp_path)[0].statistics == HALF
    of_vehicles = pretrained("vit_small", 256, 256) | NECK  # TransReID's, fine-tuned
    assert start("vit_small", of_vehicles, tmp_path)[0].statistics == HALF


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.place),)


def test_options_with_code_within_are_refused_and_not_executed(tmp_path: Path) -> None:
    content = dino(pretrained("vit_small"))
    content["args"].trap = Trap(tmp_path / "sprung")
    try:
        with pytest.raises(WeightsError, match="holds more than tensors and plain values; nothing in it was"):
            start("vit_small", content, tmp_path)
    finally:
        del content["args"].trap
    assert not (tmp_path / "sprung").exists()


def without(state: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith(prefixes)}


NECK = {
    "bottleneck.weight": torch.ones(24),
    "bottleneck.bias": torch.zeros(24),
    "bottleneck.running_mean": torch.zeros(24),
    "bottleneck.running_var": torch.ones(24),
    "bottleneck.num_batches_tracked": torch.tensor(7),
}
PART = {"part_token1": torch.ones(1, 1, 24), "part1_pos": torch.ones(1, 1, 24), "cls_pos": torch.ones(1)}
NOT_BUILT: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "part tokens (PASS)": lambda state: {"teacher": under("module.backbone.", state | PART)},
    "camera or view embeddings (SIE)": lambda state: (
        under("base.", state | {"sie_embed": torch.ones(6, 1, 24)}) | NECK
    ),
    "a branch for parts (JPM)": lambda state: (
        under("base.", state) | NECK | {"b1.0.norm1.weight": torch.ones(24)}
    ),
    "camera or view embeddings (CLIP-ReID)": lambda state: {
        "cv_embed": torch.ones(6, 24),
        "image_encoder.conv1.weight": torch.ones(1),
    },
    "a distillation token": lambda state: state | {"dist_token": torch.ones(1, 1, 24)},
}


def refusal(content: object, tmp_path: Path, arch: str = "vit_small") -> list[str]:
    with pytest.raises(WeightsError) as error:
        start(arch, content, tmp_path)
    return [text.replace(str(tmp_path / "theirs.pth"), "FILE") for text in error.value.lines()]


@pytest.mark.parametrize("words", NOT_BUILT)
def test_parts_that_calr_does_not_have_are_refused(words: str, tmp_path: Path) -> None:
    assert refusal(NOT_BUILT[words](pretrained("vit_small")), tmp_path) == [
        f"FILE has {words}, which calr's vision transformers do not have. Take a model that was trained "
        "without them"
    ]


SHAPES = "keys of another shape (1): "
MISFITS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "missing": (
        lambda state: dino(without(state, "norm.weight", "blocks.3.attn.proj.bias")),
        "missing keys (2): backbone.blocks.3.attn.proj.bias, backbone.norm.weight",
    ),
    "a norm more instead": (
        lambda state: without(state, "norm.") | {"fc_norm.weight": torch.ones(24)},
        "missing keys (2): norm.weight, norm.bias; unexpected keys (1): fc_norm.weight",
    ),
    "left over": (
        lambda state: state | {"blocks.0.ls1.gamma": torch.ones(24)},
        "unexpected keys (1): blocks.0.ls1.gamma",
    ),
    "no position for the class token": (
        lambda state: state | {"pos_embed": torch.ones(1, 128, 24)},
        SHAPES + "pos_embed (1, 128, 24) instead of (1, 9, 24)",
    ),
    "overlapping patches": (
        lambda state: state | {"pos_embed": torch.ones(1, 211, 24)},
        SHAPES + "pos_embed (1, 211, 24) instead of (1, 9, 24)",
    ),
    "patches of 8 x 8": (
        lambda state: state | {"patch_embed.proj.weight": torch.ones(24, 3, 8, 8)},
        SHAPES + "patch_embed.proj.weight (24, 3, 8, 8) instead of (24, 3, 16, 16)",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_is_missing_and_left_over_is_one_line(name: str, tmp_path: Path) -> None:
    written, words = MISFITS[name]
    hint = "Choose the architecture of that file with -a, or another file"
    assert refusal(written(pretrained("vit_small")), tmp_path) == [
        f"FILE does not fit vit_small: {words}. {hint}"
    ]


def test_a_vision_transformer_of_another_depth(tmp_path: Path) -> None:
    state = without(pretrained("vit_small"), *(f"blocks.{number}." for number in range(8, 12)))
    assert refusal(state, tmp_path) == [
        "FILE is a vision transformer of 8 blocks, 24 channels and no stem of convolutions: calr has no such "
        "one. Known are vit_small (12, 24), vit_base (12, 36), vit_small_ics (12, 24)"
    ]


def test_the_wrong_architecture_is_named(tmp_path: Path) -> None:
    lines = refusal(dino(pretrained("vit_small")), tmp_path, "resnet18")
    assert lines[-1].endswith("It looks like vit_small: give -a vit_small, or another file")
    lines = refusal(pretrained("resnet18"), tmp_path)
    assert lines[-1].endswith("It looks like resnet18: give -a resnet18, or another file")


READ = "class token, batch norm neck; pixels normalised by: mean 0.5 0.5 0.5, std 0.5 0.5 0.5"
FINE_TUNED: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "TransReID-SSL": (
        lambda state: {"state_dict": under("module.", state | NECK), "epoch": 50, "best_mAP": 0.5},
        f"TransReID-SSL, {READ}; the file says: epoch 50, best_mAP 0.5",
    ),
    "TransReID": (
        lambda state: (
            under("base.", state | {"fc.weight": torch.ones(5, 24)})
            | NECK
            | {"classifier.weight": torch.ones(5, 24)}
        ),
        f"TransReID, {READ}; mind: the feature is that after the neck (TEST.NECK_FEAT is not in the file), "
        "images are resized bicubically here, bilinearly there; not used: base.fc (1), classifier (1)",
    ),
}


@pytest.mark.parametrize("program", FINE_TUNED)
def test_models_of_other_programs(program: str, tmp_path: Path) -> None:
    written, words = FINE_TUNED[program]
    torch.save(written(pretrained("vit_small")), path := tmp_path / "theirs.pth")
    weights = read_weights(path)
    assert (weights.arch, weights.pooling, weights.input_size) == ("vit_small", "cls", (256, 128))
    assert describe(weights, "vit_small", "cls") == f"{path} is vit_small by the names of {words}"
    assert describe_input(weights, 256, 128) == "input 256 x 128"
    assert describe_input(weights, 64, 32) == (
        "input 64 x 32, position embeddings resampled from those for 256 x 128"
    )
    built = build_foreign(weights, "vit_small", "cls", WeightsError, 64, 32)
    started = start("vit_small", written(pretrained("vit_small")), tmp_path)[0].eval()
    with torch.no_grad():
        assert torch.equal(built(IMAGES), started(IMAGES))  # the neck is taken over, too


def test_a_model_of_calr_is_a_start_with_its_pixel_statistics(tmp_path: Path) -> None:
    trained = Encoder("vit_small", "cls", 64, 32).eval()
    card = ModelCard(
        "shop", "inter", 3, "vit_small", "cls", 64, 32, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)
    )
    save_model(tmp_path / "model.pth", trained, card)
    encoder = Encoder("vit_small", "cls", 64, 32).eval()
    assert load_pretrained(encoder, str(tmp_path / "model.pth")).endswith("neck by the names of calr)")
    assert (encoder.statistics.mean, encoder.statistics.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    with torch.no_grad():
        assert torch.equal(encoder(IMAGES), trained(IMAGES))
