from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calr_cli.errors import WeightsError
from calr_cli.models import released_weights
from calr_cli.models.encoder import Encoder
from calr_cli.models.pretrained import load_pretrained
from calr_cli.models.released_weights import Release
from calr_cli.training.checkpoint import ModelCard, save_model
from tests.support.foreign import Network, cap, spcl

HINT = "Choose the architecture of that file with -a, or another file"
SAVE_HINT = "Write one with torch.save(model.state_dict(), FILE)"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder("resnet18")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Another resnet18, with the classifier that published files carry."""
    published = dict(Encoder("resnet18").backbone.state_dict())
    return {**published, "fc.weight": torch.randn(10, 512), "fc.bias": torch.randn(10)}


def refusal(encoder: Encoder, source: object) -> list[str]:
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(WeightsError) as error:
        load_pretrained(encoder, str(source))
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    return error.value.lines()


def assert_loaded(encoder: Encoder, weights: dict[str, Tensor]) -> None:
    own = encoder.backbone.state_dict()
    assert all(torch.equal(own[key], weights[key]) for key in own)


def test_none_keeps_the_random_weights(encoder: Encoder) -> None:
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    assert load_pretrained(encoder, "none") == "resnet18 starts from random weights"
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_every_customary_form_of_file(
    tmp_path: Path, weights: dict[str, Tensor], prefix: str, wrapped: bool, zipped: bool
) -> None:
    state = {prefix + key: value for key, value in weights.items()}
    content = {"state_dict": state, "epoch": 7} if wrapped else state
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    encoder = Encoder("resnet18")
    line = load_pretrained(encoder, str(tmp_path / "w.pth"))
    assert line == f"resnet18 starts from {tmp_path / 'w.pth'}; left out: fc (2)"
    assert_loaded(encoder, weights)


def test_batch_counts_may_be_missing(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save({k: v for k, v in weights.items() if "num_batches" not in k}, tmp_path / "w.pth")
    encoder = Encoder("resnet18")
    load_pretrained(encoder, str(tmp_path / "w.pth"))
    assert_loaded(encoder, weights)


def test_keys_that_do_not_match_are_listed(
    tmp_path: Path, encoder: Encoder, weights: dict[str, Tensor]
) -> None:
    state = {**weights, "bn1.weight": torch.ones(3), "extra.weight": torch.ones(1)}
    del state["conv1.weight"], state["layer1.0.conv1.weight"]
    torch.save(state, path := tmp_path / "w.pth")
    assert refusal(encoder, path) == [
        f"{path} does not fit resnet18: missing keys (2): conv1.weight, layer1.0.conv1.weight; unexpected "
        f"keys (1): extra.weight; keys of another shape (1): bn1.weight (3,) instead of (64,). {HINT}"
    ]


def test_long_lists_of_keys_are_cut(tmp_path: Path, encoder: Encoder, weights: dict[str, Tensor]) -> None:
    torch.save({**weights, **{f"extra{i}": torch.ones(1) for i in range(11)}}, path := tmp_path / "w.pth")
    shown = ", ".join(f"extra{i}" for i in range(8))
    assert refusal(encoder, path) == [
        f"{path} does not fit resnet18: unexpected keys (11): {shown} and 3 more. {HINT}"
    ]


def test_weights_of_another_architecture(tmp_path: Path, encoder: Encoder) -> None:
    torch.save(Encoder("resnet34").backbone.state_dict(), path := tmp_path / "w.pth")
    (line,) = refusal(encoder, path)  # eight more blocks, each of two convolutions and two norms of five
    assert line.startswith(f"{path} does not fit resnet18: unexpected keys (96): layer1.2.conv1.weight, ")
    assert line.endswith(". It looks like resnet34: give -a resnet34, or another file")


def test_files_of_other_programs_give_backbone_exponent_and_neck(tmp_path: Path) -> None:
    path, saved = tmp_path / "theirs.pth", spcl(Network("resnet18"))
    torch.save(saved.content, path)
    encoder, images = Encoder("resnet18").eval(), torch.rand(2, 3, 64, 32)
    assert load_pretrained(encoder, str(path)) == (
        f"resnet18 starts from {path} (backbone, exponent of GeM, neck by the names of "
        "SpCL/ClusterContrast/CALR); left out: classifier (1), domain_classifier (2)"
    )
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), saved.features(images), rtol=1e-4, atol=1e-6)
    average = Encoder("resnet18", "avg")
    assert "(backbone, neck by the names of" in load_pretrained(average, str(path))


def test_what_a_start_does_not_take_over_is_said(tmp_path: Path) -> None:
    """Training is done by calr's network, whatever the file's was."""
    network, path = Network("resnet18"), tmp_path / "theirs.pth"
    encoder = Encoder("resnet18")
    torch.save(cap(network).content, path)
    assert load_pretrained(encoder, str(path)) == (
        f"resnet18 starts from {path} (backbone, neck by the names of CAP); "
        "not computed as there: no ReLU after the first batch norm"
    )
    assert isinstance(encoder.backbone.relu, torch.nn.ReLU)
    torch.save(spcl(network, embedding=True).content, path)
    assert "(backbone, exponent of GeM by" in load_pretrained(encoder, str(path))


def test_a_model_of_calr_is_a_start(tmp_path: Path) -> None:
    trained, path = Encoder("resnet18").eval(), tmp_path / "model.pth"
    save_model(path, trained, ModelCard("veri", "inter", 3, "resnet18", "gem", 64, 32))
    encoder, images = Encoder("resnet18").eval(), torch.rand(2, 3, 64, 32)
    assert load_pretrained(encoder, str(path)).endswith("neck by the names of calr)")
    with torch.no_grad():
        assert torch.equal(encoder(images), trained(images))


class Harmful:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("form", ["torch", "torch, legacy", 0, 2, 4])
def test_a_pickle_is_never_executed(tmp_path: Path, encoder: Encoder, form: str | int) -> None:
    path, harmful = tmp_path / "w.pth", Harmful(tmp_path / "executed")
    if isinstance(form, int):
        path.write_bytes(pickle.dumps(harmful, form))
    else:
        torch.save({"conv1.weight": harmful}, path, _use_new_zipfile_serialization=form == "torch")
    assert refusal(encoder, path) == [
        f"{path} holds more than tensors and plain values; nothing in it was executed"
    ]
    assert not harmful.marker.exists()
    pickle.loads(pickle.dumps(harmful))  # the control: it would have been seen
    assert harmful.marker.exists()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_truncated_file(
    tmp_path: Path, encoder: Encoder, weights: dict[str, Tensor], zipped: bool, share: float
) -> None:
    torch.save(weights, path := tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refusal(encoder, path) == [f"{path} is not a torch file, or it is damaged or cut short"]


def test_not_a_weights_file(tmp_path: Path, encoder: Encoder) -> None:
    (text := tmp_path / "text.pth").write_text("hello")
    assert refusal(encoder, text) == [f"{text} is not a torch file, or it is damaged or cut short"]
    assert refusal(encoder, tmp_path) == [f"{tmp_path} is a folder, not a file"]
    absent = tmp_path / "absent.pth"
    assert refusal(encoder, absent) == [
        f"no weights file {absent}. Give a path, 'imagenet', 'person' or 'none'"
    ]


def test_torch_files_with_something_else_in_them(tmp_path: Path, encoder: Encoder) -> None:
    path = tmp_path / "w.pth"
    for content in ([torch.ones(1)], {}, {"state_dict": 3}):
        torch.save(content, path)
        assert refusal(encoder, path) == [f"{path} holds no state dict. {SAVE_HINT}"]
    torch.save({"conv1.weight": torch.ones(1), "epoch": 3}, path)
    assert refusal(encoder, path) == [
        f"{path} holds no plain state dict: its entry 'epoch' is of type int. {SAVE_HINT}"
    ]


def test_imagenet_comes_from_the_cache_only(
    calr_home: Path, hub: Path, encoder: Encoder, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked for in calr's folder, then in torch hub's, each time with the hash."""
    name, places = "resnet18-f37072fd.pth", f"neither in {calr_home}/weights nor {hub}"
    get_them = "Get them with: calr fetch-pretrained -a resnet18"
    assert refusal(encoder, "imagenet") == [
        f"no ImageNet weights of resnet18: {name} is {places}. {get_them}"
    ]

    hub.mkdir(parents=True)
    torch.save(weights, hub / name)
    digest = hashlib.sha256((hub / name).read_bytes()).hexdigest()
    wrong = f"has the wrong sha256: {digest[:8]} instead of f37072fd"
    damaged = f"the ImageNet weights of resnet18 are damaged: {hub / name} {wrong}. {get_them}"
    assert refusal(encoder, "imagenet") == [damaged]

    release = Release(released_weights.RELEASES["resnet18"].url, digest[:8])
    monkeypatch.setitem(released_weights.RELEASES, "resnet18", release)
    (calr_home / "weights").mkdir(parents=True)
    (calr_home / "weights" / name).write_text("damaged, and first in order")
    fresh = Encoder("resnet18")
    assert load_pretrained(fresh, "imagenet") == f"resnet18 starts from ImageNet weights ({name})"
    assert_loaded(fresh, weights)


@pytest.mark.real
def test_real_mobilenet_weights_load_whole(shared: Path) -> None:
    path = shared / "weights" / "mobilenet_v2_imagenet.pth"
    encoder = Encoder("mobilenet_v2")
    load_pretrained(encoder, str(path))
    assert_loaded(encoder, torch.load(path, weights_only=True))
