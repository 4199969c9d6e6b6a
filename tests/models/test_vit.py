"""Vision transformers compute what the programs compute that their weights come from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calr_cli.errors import ConfigError, WeightsError
from calr_cli.models.encoder import Encoder
from calr_cli.models.foreign import build_foreign, foreign_weights
from calr_cli.models.vit import (
    DEPTH,
    VITS,
    Size,
    VisionTransformer,
    draw_kept_branches,
    grid_of,
    resampled,
)
from tests.conftest import GOLDEN
from tests.support.filled import fill

SHAPES: dict[str, dict[str, list[int]]] = json.loads((GOLDEN / "vit_state_dict_shapes.json").read_text())
SIZES = {"vit_small": (128, 64), "vit_small_ics": (128, 64), "vit_base": (256, 128)}


@pytest.fixture
def golden() -> Any:
    return np.load(GOLDEN / "vit_forward.npz")


def filled(arch: str) -> dict[str, Tensor]:
    """The golden network's state, neck included."""
    counts = "num_batches_tracked"
    return {
        name: torch.tensor(0) if name.endswith(counts) else fill(name, shape)
        for name, shape in SHAPES[arch].items()
    }


@pytest.mark.parametrize("arch", VITS)
def test_state_dict_is_that_of_the_publishers(arch: str) -> None:
    with torch.device("meta"):
        network = VisionTransformer(arch, *SIZES[arch])
    expected = {name: shape for name, shape in SHAPES[arch].items() if not name.startswith("bottleneck.")}
    assert {name: list(value.shape) for name, value in network.state_dict().items()} == expected


@pytest.mark.parametrize("arch", ["vit_small", "vit_small_ics"])
def test_forward_equals_the_publishers_network(arch: str, golden: Any, tmp_path: Any) -> None:
    """Their fine-tuned file, as `calr evaluate --resume` builds it: class token, neck, unit length."""
    weights = foreign_weights(
        {"state_dict": {f"module.{name}": value for name, value in filled(arch).items()}, "epoch": 50},
        tmp_path,
        WeightsError,
    )
    assert (weights.arch, weights.pooling, weights.input_size) == (arch, "cls", (128, 64))
    encoder = build_foreign(weights, arch, "cls", WeightsError, 128, 64)
    images = torch.from_numpy(golden[f"{arch}_x"])
    with torch.no_grad():
        tokens, features = encoder.backbone(images), encoder(images)
    np.testing.assert_allclose(tokens[:, 0].numpy(), golden[f"{arch}_cls"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(features.numpy(), golden[f"{arch}_feature"], rtol=0, atol=1e-4)
    with torch.no_grad():  # the other pooling: the patches, without the class token
        mean = build_foreign(weights, arch, "avg", WeightsError, 128, 64)(images)
        expected = nn.functional.normalize(encoder.neck(tokens[:, 1:].mean(dim=1)))
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("grid", [(8, 4), (24, 8), (16, 8)])
def test_position_embeddings_are_resampled_as_the_publishers_do(grid: tuple[int, int], golden: Any) -> None:
    found = resampled(fill("pos_embed", (1, 129, 384)), (16, 8), grid)[:, :, :16]
    expected = golden[f"pos_embed_16x8_to_{grid[0]}x{grid[1]}"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("patches", "grid"),
    [(128, (16, 8)), (32, (8, 4)), (196, (14, 14)), (192, (24, 8)), (288, (24, 12)), (210, None), (0, None)],
)
def test_the_number_of_patches_tells_the_grid(patches: int, grid: tuple[int, int] | None) -> None:
    assert grid_of(patches) == grid


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> VisionTransformer:
    """With weights that are all but small: every part of it counts."""
    monkeypatch.setitem(VITS, "vit_small", Size(24, 3, ics=False))
    network = VisionTransformer("vit_small", 64, 32).eval()
    torch.manual_seed(5)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


IMAGES = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_tokens_are_those_of_torchs_own_transformer(tiny: VisionTransformer) -> None:
    dim = 24
    layer = nn.TransformerEncoderLayer(
        dim, 3, 4 * dim, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    theirs = nn.TransformerEncoder(
        layer, DEPTH, nn.LayerNorm(dim, eps=1e-6), enable_nested_tensor=False
    ).train()  # in evaluation it takes another way
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.proj.",
        "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.",
        "layers.": "blocks.",
    }
    own, state = tiny.state_dict(), {}
    for name in theirs.state_dict():
        key = name
        for theirs_part, ours in names.items():
            key = key.replace(theirs_part, ours)
        state[name] = own[key]
    theirs.load_state_dict(state)
    patches = IMAGES.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).reshape(2, 8, 3 * 256)
    projected = patches @ tiny.patch_embed.proj.weight.flatten(1).T + tiny.patch_embed.proj.bias
    tokens = torch.cat([tiny.cls_token.expand(2, 1, dim), projected], dim=1) + tiny.pos_embed
    torch.testing.assert_close(tiny(IMAGES), theirs(tokens), rtol=0, atol=1e-5)


@torch.no_grad()
def test_tokens_are_those_of_timm(tiny: VisionTransformer) -> None:
    timm = pytest.importorskip("timm.models.vision_transformer", reason="timm is not installed")
    theirs = timm.VisionTransformer((64, 32), 16, embed_dim=24, depth=DEPTH, num_heads=3, num_classes=0)
    theirs.load_state_dict(tiny.state_dict())
    torch.testing.assert_close(tiny(IMAGES), theirs.eval().forward_features(IMAGES), rtol=0, atol=1e-5)


@torch.no_grad()
def test_stochastic_depth_leaves_out_branches(tiny: VisionTransformer) -> None:
    everything = torch.ones(2, 2 * DEPTH)
    assert torch.equal(tiny(IMAGES, everything), tiny(IMAGES))
    first = tiny.patch_embed(IMAGES)
    first = torch.cat([tiny.cls_token.expand(2, -1, -1), first], dim=1) + tiny.pos_embed
    assert torch.equal(tiny(IMAGES, 0 * everything), tiny.norm(first))
    mixed = everything.clone()
    mixed[1] = 0  # for each image by itself
    found = tiny(IMAGES, mixed)
    assert torch.equal(found[1], tiny.norm(first)[1])
    torch.testing.assert_close(found[0], tiny(IMAGES)[0])


def test_draws_of_stochastic_depth() -> None:
    kept = draw_kept_branches(20_000, 0.3, np.random.default_rng(0))
    assert kept.shape == (20_000, 2 * DEPTH)
    rates = 1 - (kept > 0).float().mean(dim=0)
    expected = torch.linspace(0, 0.3, DEPTH).repeat_interleave(2)
    torch.testing.assert_close(rates, expected, rtol=0, atol=0.015)
    torch.testing.assert_close(kept.mean(dim=0), torch.ones(2 * DEPTH), rtol=0, atol=0.02)
    assert set(kept[:, -1].tolist()) == {0.0, np.float32(1 / 0.7)}


@pytest.mark.parametrize(("height", "width"), [(64, 32), (70, 47), (33, 32), (47, 63)])
@pytest.mark.parametrize("ics", [False, True])
def test_any_size_of_input_has_its_grid(
    height: int, width: int, ics: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VITS, "vit_small", Size(24, 3, ics))
    network = VisionTransformer("vit_small", height, width).eval()
    with torch.no_grad():
        tokens = network(torch.rand(1, 3, height, width))
    assert tokens.shape == (1, 1 + network.grid[0] * network.grid[1], 24)


@torch.no_grad()
def test_bf16_is_within_its_rounding(tiny: VisionTransformer) -> None:
    encoder = Encoder("vit_small", "cls", 64, 32).eval()
    exact = encoder(IMAGES)
    encoder.precision = torch.bfloat16
    found = encoder(IMAGES)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    assert (found * exact).sum(dim=1).min() > 0.999


def test_pooling_of_another_kind_of_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown pooling 'gem' of a vision transformer. Known: cls, avg"):
        Encoder("vit_small", "gem", 32, 32)
    with pytest.raises(ConfigError, match=r"unknown pooling 'cls'. Known: gem, avg"):
        Encoder("resnet18", "cls")
