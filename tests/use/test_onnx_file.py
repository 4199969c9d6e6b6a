"""Files compute what their models compute, in batches of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from calr_cli.data.augment import normalise
from calr_cli.errors import CheckpointError
from calr_cli.models.backbones import CONVOLUTIONAL
from calr_cli.models.batch_norm import BATCH_NORMS
from calr_cli.models.encoder import Encoder
from calr_cli.models.foreign import build_foreign, foreign_weights
from calr_cli.use import onnx_file
from calr_cli.use.onnx_file import OPSET, open_onnx, write_onnx
from tests.support.foreign import Network, Saved, cap, fast_reid, spcl, torchreid, transreid

HEIGHT, WIDTH = 48, 32

FOREIGN: dict[str, Callable[[Network], Saved]] = {
    "embedding": lambda network: spcl(network, embedding=True),
    "no first ReLU": cap,
    "first pooling 2 x 2": transreid,
    "last stride 2, no neck": torchreid,
    "ReLU at the end": lambda network: torchreid(network, embedding=True),
    "non-local blocks, pooling without padding": lambda network: fast_reid(network, non_local=True),
}
"""All that other programs compute otherwise."""


def trained(arch: str, pooling: str) -> Encoder:
    """With statistics that cannot be left out unnoticed, and under which images keep differing."""
    torch.manual_seed(0)
    variances = (0.1, 0.5) if arch == "mobilenet_v2" else (0.5, 1.5)  # signals die, or grow without bound
    encoder = Encoder(arch, pooling).eval()
    for module in encoder.modules():
        if isinstance(module, BATCH_NORMS):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, *variances)
    return encoder


def pixels() -> np.ndarray:
    """Four images of patches: noise would look all the same to a network."""
    patches = np.random.default_rng(0).integers(0, 256, (4, HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return patches.repeat(8, axis=1).repeat(8, axis=2)


def foreign(name: str) -> Encoder:
    torch.manual_seed(0)
    saved = FOREIGN[name](Network("resnet18"))
    weights = foreign_weights(saved.content, Path("theirs.pth"), CheckpointError)
    return build_foreign(weights, weights.arch, weights.pooling or "avg", CheckpointError)


def largest_difference(encoder: Encoder, folder: Path) -> float:
    """In batches of one and of three images."""
    write_onnx(folder / "m.onnx", encoder, HEIGHT, WIDTH, {})
    run = open_onnx(folder / "m.onnx")
    with torch.inference_mode():
        expected = encoder(normalise(torch.from_numpy(pixels()))).numpy()
    assert np.abs(expected[0] - expected[1]).max() > 1e-4
    return float(np.abs(np.concatenate([run(pixels()[:1]), run(pixels()[1:])]) - expected).max())


# Deeper networks are more of the same blocks; the pooling does not depend on what comes before it.
SMALLER = [arch for arch in CONVOLUTIONAL if not any(word in arch for word in ("101", "152", "tiny"))]


@pytest.mark.parametrize(("arch", "pooling"), [*((arch, "gem") for arch in SMALLER), ("resnet18", "avg")])
def test_every_network(arch: str, pooling: str, tmp_path: Path) -> None:
    assert largest_difference(trained(arch, pooling), tmp_path) < 1e-5


@pytest.mark.parametrize("name", FOREIGN)
def test_networks_of_other_programs(name: str, tmp_path: Path) -> None:
    assert largest_difference(foreign(name), tmp_path) < 1e-5


def test_what_is_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    write_onnx(file, trained("resnet18", "gem"), HEIGHT, WIDTH, {"arch": "resnet18"})
    model = onnx.load(file)

    def shape(value: Any) -> list[Any]:
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    assert [(value.name, shape(value)) for value in model.graph.input] == [
        ("images", ["N", HEIGHT, WIDTH, 3])
    ]
    assert [(value.name, shape(value)) for value in model.graph.output] == [("features", ["N", 512])]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"arch": "resnet18"}
    # Runtimes for small devices do without operators that compute shapes.
    assert not {"Shape", "Expand", "Reshape", "If"} & {node.op_type for node in model.graph.node}

    # The exporter would note the source lines of every operator, with the folders of this machine.
    assert str(Path(onnx_file.__file__).parent).encode() not in file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
