from __future__ import annotations

import os
import pickle
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from calr_cli.errors import CheckpointError
from calr_cli.models.encoder import Encoder
from calr_cli.models.foreign import ForeignWeights
from calr_cli.training.checkpoint import (
    ModelCard,
    load_encoder,
    load_model,
    load_state,
    open_model,
    save_model,
    save_state,
)

CARD = ModelCard("veri", "inter", 3, "resnet18", "gem", 64, 32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder("resnet18", "gem").train()


@pytest.fixture(scope="module")
def model(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "model.pth"
    save_model(path, encoder, CARD)
    return path


def test_a_model_comes_back_as_it_was(encoder: Encoder, model: Path) -> None:
    loaded, card = load_model(model)
    assert card == CARD
    assert not loaded.training
    for (name, ours), (other, theirs) in zip(
        encoder.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(ours, theirs)
    images = torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(encoder.eval()(images), loaded(images))


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    state = {"epoch": 4, "best": -0.5, "encoder": layer.state_dict(), "optimiser": optimiser.state_dict()}
    save_state(tmp_path / "new folder" / "checkpoint.pth", state)
    loaded = load_state(tmp_path / "new folder" / "checkpoint.pth")
    assert list(loaded) == list(state)
    assert (loaded["epoch"], loaded["best"]) == (4, -0.5)
    assert torch.equal(loaded["encoder"]["weight"], layer.weight)
    assert torch.equal(
        loaded["optimiser"]["state"][0]["exp_avg"], optimiser.state_dict()["state"][0]["exp_avg"]
    )
    torch.optim.Adam(layer.parameters()).load_state_dict(loaded["optimiser"])


def refusal(path: Path, read: Any = load_model) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path)
    (line,) = caught.value.lines()
    assert "\n" not in line
    return str(line).replace(str(path), "FILE")


@pytest.mark.parametrize("read", [load_model, load_state])
def test_a_missing_file_a_folder_and_rubbish(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "model.pth"
    assert refusal(path, read) == "no file FILE"
    assert refusal(tmp_path, read) == "FILE is a folder, not a file"
    for content in (b"", b"not a checkpoint", bytes(1000)):
        path.write_bytes(content)
        assert refusal(path, read).startswith("FILE ")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_model(model: Path, tmp_path: Path, share: float) -> None:
    content = model.read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(content[: int(len(content) * share)])
    assert refusal(cut) == "FILE is not a torch file, or it is damaged or cut short"


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("read", [load_model, load_state])
def test_a_foreign_pickle_is_never_executed(tmp_path: Path, read: Any, zipped: bool) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "model.pth"
    content = {"format": "calr 1", "card": {}, "state_dict": {}, "state": Trap(sprung)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    assert refusal(path, read) == "FILE holds more than tensors and plain values; nothing in it was executed"
    assert not sprung.exists()
    if not zipped:
        pickle.loads(path.read_bytes())  # the trap is a real one
        assert sprung.exists()


def test_what_is_not_a_model_of_ours(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    for content in ({"state_dict": {}}, [1, 2], torch.zeros(3)):
        torch.save(content, path)
        assert refusal(path).startswith("FILE holds no state dict. ")
    torch.save({"x": torch.zeros(1)}, path)
    assert refusal(path).startswith("FILE is no network that calr recognises; its keys: x. Known are ")
    save_state(path, {"epoch": 1})
    assert refusal(path) == "FILE is the state of a run, not a model. Give its model.pth or last.pth"
    assert refusal(model, load_state) == "FILE is not the state of a run of calr"


def test_networks_of_other_programs(encoder: Encoder, tmp_path: Path) -> None:
    """They can be measured; what needs a card refuses them."""
    path, images = tmp_path / "theirs.pth", torch.rand(2, 3, 64, 32)
    torch.save({"state_dict": encoder.eval().state_dict(), "epoch": 7}, path)
    assert refusal(path) == "FILE is not a model written by calr. Give the model.pth of a finished run"
    opened = open_model(path)
    assert isinstance(opened, ForeignWeights)
    assert (opened.arch, opened.pooling, opened.notes) == ("resnet18", "gem", {"epoch": 7})
    with torch.no_grad():
        assert torch.equal(load_encoder(path, "resnet18", "gem")(images), encoder(images))


def test_a_model_of_ours_knows_its_network(encoder: Encoder, model: Path) -> None:
    loaded = load_encoder(model, "resnet50", "avg")
    assert (loaded.arch, loaded.pooling_name, loaded.training) == ("resnet18", "gem", False)


def test_a_card_and_a_network_that_do_not_fit(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    start = "FILE does not hold the network that it names: "
    save_model(path, encoder, replace(CARD, arch="resnet34"))
    assert refusal(path).startswith(
        f"{start}RuntimeError Error(s) in loading state_dict for Encoder: Missing key"
    )
    assert len(refusal(path)) < 300
    save_model(path, encoder, replace(CARD, pooling="avg"))
    assert "pooling" in refusal(path)
    save_model(path, encoder, replace(CARD, arch="resnet7"))
    assert refusal(path).startswith(f"{start}ConfigError ")
    for content in ({"card": {"arch": "resnet18"}}, {"card": 3}, {"card": CARD.__dict__}):
        torch.save({"format": "calr 1"} | content, path)
        assert refusal(path).startswith(start)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 200 kB: the system refuses the write, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("existed", [True, False])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    encoder: Encoder, tmp_path: Path, existed: bool
) -> None:
    path = tmp_path / "checkpoint.pth"
    if existed:
        save_state(path, {"epoch": 1})
    with pytest.raises(OSError, match=r"File too large: '.*checkpoint\.pth'$"):
        save_model(path, encoder, CARD)
    with pytest.raises(OSError, match=r"File too large: '.*checkpoint\.pth'$"):
        save_state(path, {"encoder": encoder.state_dict()})
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["checkpoint.pth"] * existed
    if existed:
        assert load_state(path) == {"epoch": 1}


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    save_state(path, {"epoch": 1})
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        save_state(path, {"epoch": 2, "open file": lambda: None})
    assert load_state(path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["checkpoint.pth"]
