"""A model loaded from Python, as in docs/api.md; the commands that use one are tested in their own room."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import calr_cli
from calr_cli import load_embedder
from calr_cli.errors import CheckpointError, ConfigError, DataError
from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard, save_model
from calr_cli.use.embedding import Embedder
from tests.support.foreign import Network, spcl
from tests.support.made_up import write_image


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    save_model(path, Encoder("resnet18", "avg"), ModelCard("shop", "inter", 1, "resnet18", "avg", 64, 32))
    return path


def test_a_model_knows_its_size_and_embeds_what_can_be_read(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = [tmp_path / f"{n}.jpg" for n in range(3)]
    for n, image in enumerate(images):
        write_image(image, n)
    images[1].write_bytes(b"no image")
    loaded = load_embedder(str(model), device="cpu", settings={"evaluation.batch_size": 2})
    assert (loaded.settings.data.height, loaded.settings.evaluation.batch_size) == (64, 2)
    assert (loaded.dataset, loaded.calibration) == ("shop", None)
    features, failed = loaded.embed(images)
    assert features.paths == (str(images[0]), str(images[2]))
    assert np.allclose(np.linalg.norm(features.rows, axis=1), 1, atol=1e-4)
    assert len(failed) == 1
    assert str(images[1]) in failed[0]
    with pytest.raises(DataError, match=r"There is no image that can be read"):
        loaded.embed(images[1:2])
    assert capfd.readouterr() == ("", "")


def test_a_model_of_another_program_takes_its_size_from_the_settings(tmp_path: Path) -> None:
    torch.save(spcl(Network("resnet18")).content, tmp_path / "theirs.pth")
    loaded = load_embedder(tmp_path / "theirs.pth", settings={"data": {"height": 96, "width": 48}})
    assert (loaded.settings.data.height, loaded.settings.data.width) == (96, 48)
    assert loaded.dataset is None


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"data.height": 32}, CheckpointError, r"model\.pth has height 64, not 32\. Leave that out"),
        ({"batch_size": 3}, ConfigError, r"unknown setting batch_size \(settings\); did you mean "),
        ({"evaluation.batch_size": 0}, ConfigError, r"evaluation\.batch_size = 0 \(settings\) must be "),
    ],
)
def test_wrong_settings(model: Path, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_embedder(model, settings=settings)


def test_the_package_alone_is_light() -> None:
    code = "import sys, calr_cli\nprint([name for name in ('torch', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match=re.escape("module 'calr_cli' has no attribute 'nothing'")):
        _ = calr_cli.nothing


@pytest.fixture
def loaded(model: Path) -> Embedder:
    return load_embedder(model, device="cpu", settings={"precision": "fp32"})


@pytest.mark.parametrize(
    "paths",
    [[], (), [np.zeros((4, 4, 3), np.uint8)], np.zeros((2, 4, 4, 3), np.uint8), 7, None, b"x.png"],
    ids=repr,
)
def test_what_embed_does_not_take(loaded: Embedder, paths: Any) -> None:
    with pytest.raises(
        DataError, match=r"^(there is no image|embed takes paths of image files\. For arrays)"
    ):
        loaded.embed(paths)


def test_a_single_path_is_one_image(tmp_path: Path, loaded: Embedder) -> None:
    """And not a list of letters."""
    write_image(tmp_path / "1.png", 1)
    for paths in (str(tmp_path / "1.png"), tmp_path / "1.png", iter([tmp_path / "1.png"])):
        features, failed = loaded.embed(paths)
        assert (features.paths, failed) == ((str(tmp_path / "1.png"),), [])
    with pytest.raises(DataError, match=r"^no/1\.png: no such file\. There is no image"):
        loaded.embed("no/1.png")


@pytest.mark.parametrize(
    ("device", "line"),
    [
        ("gpu", "device 'gpu' is not known here. Choose cpu, cuda or cuda:1"),
        ("meta", "device 'meta' is not known here. Choose cpu, cuda or cuda:1"),
        ("cuda:-1", "device 'cuda:-1' is not known here. Choose cpu, cuda or cuda:1"),
        ("cuda:99", "device 'cuda:99' is not there; CUDA devices here: "),
        (7.5, "device '7.5' is not known here"),
    ],
)
def test_a_device_that_is_not_there(model: Path, device: Any, line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_embedder(model, device=device)
    assert str(raised.value).startswith(line)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu(model: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^device 'cuda' is not there; CUDA devices here: none\. Or take cpu$"
    ):
        load_embedder(model, device="cuda")


def noise(*shape: int, kind: type = np.uint8) -> Any:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, kind)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize(
    "array",
    [
        noise(70, 40, 3),
        noise(64, 32, 3),
        noise(1, 1, 3),
        noise(70, 40),
        noise(70, 40, 1),
        noise(70, 40, 4),
        noise(70, 40, kind=np.uint16),
        noise(140, 80, 3)[::2, ::-2],
    ],
    ids=lambda array: f"{array.shape} {array.dtype}",
)
def test_an_array_is_what_the_same_file_is(
    tmp_path: Path, loaded: Embedder, array: Any, channels: Any
) -> None:
    """To the bit, whatever its size, channels and memory layout."""
    colours = array[:, :, 0] if array.shape[2:] == (1,) else array
    Image.fromarray(np.ascontiguousarray(colours)).save(tmp_path / "1.png")
    if channels == "bgr" and array.shape[2:] in ((3,), (4,)):
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    (row,), failed = loaded.embed_images([array], channels)
    features, _ = loaded.embed(tmp_path / "1.png")
    assert failed == []
    np.testing.assert_array_equal(row, features.rows[0])


def test_an_image_of_pillow_is_what_its_file_is(tmp_path: Path, loaded: Embedder) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(noise(70, 40, 3)).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(noise(70, 40, 3)).convert("P").save(tmp_path / "palette.gif")
    Image.fromarray(noise(70, 40, 4)).save(tmp_path / "clear.webp", lossless=True)
    files = sorted(tmp_path.glob("*.[jgw]*"))
    with ExitStack() as opened:
        images = [opened.enter_context(Image.open(file)) for file in files]
        slots, failed = loaded.embed_images([*images, *files])
    assert (len(slots), failed) == (6, [])
    np.testing.assert_array_equal(slots[:3], slots[3:])
    np.testing.assert_array_equal(slots[3:], loaded.embed(files)[0].rows)


def test_every_image_has_its_slot(tmp_path: Path, loaded: Embedder) -> None:
    """A tracker's crop may lie outside of the picture; the others keep their places."""
    (tmp_path / "half.png").write_bytes(b"no image")
    good = noise(70, 40, 3)
    closed = Image.fromarray(good)
    closed.close()
    bad = [
        good[:0],
        good.astype(np.float32),
        noise(70, 40, 5),
        noise(70),
        tmp_path / "half.png",
        "no.png",
        None,
        torch.zeros(3, 4, 4),
        Image.new("F", (4, 4)),
    ]
    slots, failed = loaded.embed_images([good, *bad, good])
    assert [slot is None for slot in slots] == [False, *[True] * len(bad), False]
    np.testing.assert_array_equal(slots[0], slots[-1])
    assert [line.removeprefix(f"{tmp_path}/") for line in failed] == [
        "image 1: it has no pixels: its shape is (0, 40, 3)",
        "image 2: its numbers are float32, not uint8",
        "image 3: its shape is (70, 40, 5), not (height, width, 3)",
        "image 4: its shape is (70,), not (height, width, 3)",
        "half.png: cannot be read (not an image)",
        "no.png: no such file",
        "image 7: NoneType is neither a path nor an array nor an image of Pillow",
        "image 8: Tensor is neither a path nor an array nor an image of Pillow",
        "image 9: its pixels (F) are neither grey nor RGB nor CMYK of 8 or 16 bits",
    ]
    assert loaded.embed_images([None, good[:0]])[0] == [None, None]  # type: ignore[list-item]
    assert loaded.embed_images([]) == ([], [])
    stacked, _ = loaded.embed_images(np.stack([good, good]))
    np.testing.assert_allclose(stacked, [slots[0]] * 2, atol=1e-6)


@pytest.mark.parametrize(
    "images",
    [noise(70, 40, 3), Image.new("RGB", (4, 4)), "1.png", 7],
    ids=["array", "image", "text", "number"],
)
def test_one_image_is_not_a_list(loaded: Embedder, images: Any) -> None:
    """Its rows would be taken for grey images."""
    with pytest.raises(DataError, match=r"^embed_images takes a list of images\. For a single one: "):
        loaded.embed_images(images)
    with pytest.raises(ConfigError, match=r"^channels 'BGR' is not known\. Choose rgb or bgr$"):
        loaded.embed_images([images], "BGR")  # type: ignore[arg-type]


def test_precision_belongs_to_the_features(tmp_path: Path, loaded: Embedder) -> None:
    write_image(tmp_path / "1.png", 1)
    other = loaded.computing_in("bf16")
    ours, theirs = loaded.embed(tmp_path / "1.png")[0], other.embed(tmp_path / "1.png")[0]
    assert (ours.precision, theirs.precision) == ("fp32", "bf16")
    assert ours.model == theirs.model
    assert not np.array_equal(ours.rows, theirs.rows)
    assert loaded.computing_in("fp32") is loaded
    np.testing.assert_array_equal(other.computing_in("fp32").embed(tmp_path / "1.png")[0].rows, ours.rows)


def test_a_large_photograph_is_read_without_a_word(tmp_path: Path) -> None:
    """Of more than 89 million pixels; of the library alone, which may print nothing."""
    code = (
        "import sys; from PIL import Image; from pathlib import Path\n"
        "from calr_cli.data.images import read_pixels\n"
        "Image.MAX_IMAGE_PIXELS = 100\n"
        "print(read_pixels(Path(sys.argv[1]), 4, 4).shape)"
    )
    Image.new("RGB", (12, 12)).save(tmp_path / "1.png")
    command = [sys.executable, "-c", code, str(tmp_path / "1.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(4, 4, 3)\n", "")


def test_what_is_no_image_and_no_model_is_told(loaded: Embedder) -> None:
    rows, reasons = loaded.embed_images([Image.new("RGB", (0, 4)), "", Image.new("L", (9, 9))])
    assert [row is None for row in rows] == [True, True, False]
    assert reasons == ["image 0: it has no pixels: its size is 0 x 4", "image 1: its path is empty"]
    for path in (None, "", 3):
        with pytest.raises(CheckpointError, match="is not the path of a model"):
            load_embedder(path)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="settings have to be a mapping"):
        load_embedder("model.pth", settings=["evaluation.batch_size=4"])  # type: ignore[arg-type]
