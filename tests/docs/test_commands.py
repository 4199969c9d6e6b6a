"""Every command that the documentation shows is run, page by page, in order, on made-up images.

Only what makes a run long is replaced: network, input size, batches, epochs. A command that needs what a
test cannot have, a network or a GPU, must fail with its one clear line and is then run without that need.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest
import torch
from pyarrow import csv, parquet
from typer.testing import CliRunner

from calr_cli.cli.app import app
from calr_cli.config.loading import flat_settings
from calr_cli.runs.folder import RunFolder
from tests.docs.pages import PAGES, REPOSITORY, Line, fenced_lines, files_of, name
from tests.support.foreign import Network, fast_reid, spcl
from tests.support.made_up import FLAT, make_layout, write_image
from tests.support.released import write_released
from tests.support.small import SETTINGS

pytestmark = pytest.mark.usefixtures("narrow")

SHELL = ("bash", "sh", "shell", "console")

STORIES = [page for page in PAGES if page.name != "commands.md"]
"""The examples of commands.md are those of ``--help``, each for itself: test_help.py parses them."""

NOT_CALR = {
    "make demo": "sets up and runs `calr demo`, which the quickstart has and this test runs",
    "make test": "runs this test",
    "make check": "CI runs it before the tests",
    "pip install '.[": "needs a package index",
    "pip install 'calr-cli[": "needs a package index",
    "tensorboard --logdir": "a server; tests/runs/test_tensorboard.py reads what it reads",
    "jq ": "another program",
    "docker ": "needs a Docker daemon; the page says that nobody has tried it",
    "mkdir ": "another program",
    "python3 -m venv .venv": "belongs to the installation",
    ". .venv/bin/activate": "belongs to the installation",
    "python benchmarks/recipes.py": "needs real images and hours; prints the commands it runs",
    "python benchmarks/selection.py": "test_benchmarks.py runs it, on made-up figures",
    "python benchmarks/training.py": "test_benchmarks.py runs it, at a tiny size",
    "torchrun": "tests/cli/test_end_to_end.py runs two agents on loopback",
    "python benchmarks/labels.py": "test_benchmarks.py runs it, at a tiny size",
    "python benchmarks/evaluation.py": "test_benchmarks.py runs it, at a tiny size",
    "python benchmarks/reranking.py": "test_benchmarks.py runs it, at a tiny size",
    "python benchmarks/listing.py": "test_benchmarks.py runs it, at a tiny size",
    "python benchmarks/linkage.py": "test_benchmarks.py runs it, at a tiny size",
    "python benchmarks/folding.py": "test_benchmarks.py runs it, at a tiny size",
    "python benchmarks/parts.py": "test_benchmarks.py checks what it shows",
    "python benchmarks/pooling.py": "test_benchmarks.py runs it, at a tiny size",
    "python benchmarks/waiting.py": "test_benchmarks.py runs it, with few steps",
    "python benchmarks/searching.py": "test_benchmarks.py runs it, at a tiny size",
    "python benchmarks/gpu.py": "test_gpu_benchmark.py runs it, at tiny sizes",
    "python benchmarks/demonstration.py": "test_benchmarks.py runs it, on made-up figures",
    "python benchmarks/exporting.py": "test_benchmarks.py runs it, at a tiny size",
    "python benchmarks/identities.py": "test_benchmarks.py runs it, on the synthetic dataset",
    "python benchmarks/gallery.py": "test_benchmarks.py runs it, at a tiny size",
    "python benchmarks/communities.py": "test_benchmarks.py runs it, on the synthetic dataset",
    "python benchmarks/calibration.py": "test_benchmarks.py runs it, on the synthetic dataset",
}
"""Other commands that may be shown, by how they start, and why they are not run here."""

TRAINING = ("train-intra", "train-inter", "train")

SIZE = ["--height", "32", "--width", "32"]
NETWORK = ["-a", "resnet18", "--pretrained", "none"]


@dataclass(frozen=True)
class Need:
    """What a test cannot have: which commands need it, their error without it, and how to do without."""

    what: str
    pattern: str
    error: str
    without: Callable[[list[str]], list[str]] | None
    there: bool = False


def without_flag(flag: str) -> Callable[[list[str]], list[str]]:
    def rest(words: list[str]) -> list[str]:
        place = words.index(flag)
        return [*words[:place], *words[place + 2 :]]

    return rest


def replaced(words: list[str], flags: list[str]) -> list[str]:
    """The command with these flags and their values, which can be given only once."""
    for flag in flags[::2]:
        while flag != "--set" and flag in words:
            words = without_flag(flag)(words)
    return [*words, *flags]


NEEDS = (
    Need(
        "a network",
        r"^fetch-pretrained -a \w+$",
        r"^error: cannot reach https://.* through the proxy: .* --file FILE$",
        None,
    ),
    Need("published weights", r"^fetch-pretrained .*--file ", r"^error: no file Downloads/\S+\.pth\. ", None),
    Need(
        "several GPUs",
        r" --gpus \d+,",
        r"^error: --gpus [\d,]+: (no device .*there is no CUDA device here\. Leave --gpus out to use the CPU"
        r"|no device .*CUDA devices here: .*)$",
        without_flag("--gpus"),
        there=torch.cuda.device_count() > 3,
    ),
    Need(
        "a GPU",
        r" --gpus \d+( |$)",
        r"^error: --gpus \d+: no device \d+; there is no CUDA device here\. Leave --gpus out to use the CPU$",
        without_flag("--gpus"),
        there=torch.cuda.is_available(),
    ),
    Need(
        "pretrained weights",
        r"^evaluate .*--pretrained (imagenet|\S+\.pth)",
        r"^error: no (ImageNet weights of \w+: .*\. Get them with: calr fetch-pretrained -a|weights file )",
        lambda words: replaced(words, [*SIZE, *NETWORK]),
    ),
)


def commands(where: str, lines: Iterable[Line]) -> Iterator[tuple[int, str]]:
    """Line number and text of each ``calr`` command of a page; all else in a shell block has to be known."""
    remaining = iter([line for line in lines if line.text.strip()])
    for line in remaining:
        text = line.text.strip().removeprefix("$ ")
        while text.endswith("\\"):
            text = f"{text[:-1].rstrip()} {next(remaining).text.strip()}"
        if re.match(r"calr\b", text):
            assert line.language in SHELL, f"{where}:{line.number}: a command outside of a shell block"
            yield line.number, text
        elif line.language in SHELL and not text.startswith("#"):
            known = any(text.startswith(other) for other in NOT_CALR)
            assert known, f"{where}:{line.number}: nothing runs this: {text}"


def assignments(stage: str) -> list[str]:
    """The small settings of one stage, one epoch of it, as ``--set``."""
    section = SETTINGS[stage] | {"epochs": 1}
    flat = {
        f"{stage}.{key}.{inner}" if isinstance(value, dict) else f"{stage}.{key}": item
        for key, value in section.items()
        for inner, item in (value.items() if isinstance(value, dict) else [("", value)])
    }
    return list(chain.from_iterable(("--set", f"{key}={value}") for key, value in flat.items()))


def smaller(words: list[str]) -> list[str]:
    """The command with what makes it long replaced."""
    command = words[0]
    if resumes(words):
        return [re.sub(r"^inter\.epochs=\d+$", "inter.epochs=3", word) for word in words]
    if "--print-config" in words or command not in (*TRAINING, "demo"):
        return words
    if "--recipe" not in words and command != "demo":
        # Of 48 made-up images, plus makes too few clusters to calibrate with; test_end_to_end.py trains it.
        words = [*words, "--recipe", "calr"]
    both = [*assignments("intra"), *assignments("inter")]
    if command == "demo":
        return [*words, *both, "--set", "data.height=32", "--set", "data.width=32"]
    network = [*SIZE, *NETWORK, "-j", "1"]
    stage = command.partition("-")[2]
    if not stage:
        return replaced(words, [*both, *network])
    own = SETTINGS[stage]
    size = ["-b", str(own["batch_size"]), "--num-instances", str(own["num_instances"])]
    return replaced(words, [*both, *network, *size, "--iters", str(own["iters"]), "--epochs", "1"])


def resumes(words: list[str]) -> bool:
    return words[0] in TRAINING and "--resume" in words


def interrupt(folder: Path) -> None:
    """Take a finished run of one epoch back to where one of two epochs stands after the first."""
    run = RunFolder(folder)
    inter = run.settings.inter.model_copy(update={"epochs": 2})
    settings = run.settings.model_copy(update={"inter": inter})
    run.write_settings(settings)
    run.write_environment({**run.read_environment(), "settings": flat_settings(settings)})
    run.model.unlink()


@dataclass(frozen=True)
class Answer:
    exit_code: int
    stdout: str
    stderr: str


def calr(words: list[str]) -> Answer:
    result = CliRunner().invoke(app, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages call ``/data``: datasets, their archives, released labels, own images, models."""
    root = tmp_path_factory.mktemp("data")
    for dataset in (*FLAT, "msmt17"):
        make_layout(dataset, root)
    for archive, kind, dataset in (
        ("course-material", "zip", "veri"),
        ("DukeMTMC-reID", "zip", "dukemtmcreid"),
        ("MSMT17_V1", "gztar", "msmt17"),
        ("VeRi", "zip", "veri"),
    ):
        shutil.make_archive(str(root / "downloads" / archive), kind, root / dataset)
    split = root / FLAT["market1501"][0] / FLAT["market1501"][1]
    names = [path.name for path in sorted(split.iterdir())]
    released = [(name, int(name[6]) - 1, int(name[:4])) for name in names]
    write_released(root / "CALR" / "local results" / "market", released)
    shop, street = root / "shop", root / "street"
    rows = ["path,camid,pid,split"]
    for pid in range(8):
        for n in range(6):
            image = shop / f"{pid:04d}_c{n % 3 + 1}_{n}.jpg"
            image.parent.mkdir(exist_ok=True)
            write_image(image, pid, seed=n)
            split = "train" if pid < 4 else "query" if n < 3 else "gallery"
            rows.append(f"shop/{image.name},{n % 3 + 1},{pid},{split}")
            unlabelled = street / f"cam{n % 3}" / f"{pid}-{n}.jpg"
            unlabelled.parent.mkdir(parents=True, exist_ok=True)
            write_image(unlabelled, pid, seed=n)
    (root / "pku-reid").mkdir()
    (root / "pku-reid" / "images").symlink_to(shop)
    (root / "shop.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    parquet.write_table(csv.read_csv(root / "shop.csv"), root / "shop.parquet")
    (root / "models").mkdir()
    torch.save(spcl(Network("resnet18")).content, root / "models" / "model_best.pth.tar")
    torch.save(fast_reid(Network("resnet18"), "avg").content, root / "models" / "bagtricks_R50.pth")
    return root


@pytest.fixture
def folder(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with the checkout's ``benchmarks`` and ``../shared/data`` beside it."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "benchmarks").symlink_to(REPOSITORY / "benchmarks")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "data").symlink_to(data)
    monkeypatch.chdir(here)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there: no network
    monkeypatch.delenv("no_proxy", raising=False)
    yield here
    shutil.rmtree(tmp_path)  # models are large, and pytest would keep those of three sessions


@pytest.mark.parametrize("page", STORIES, ids=name)
def test_every_command_is_one_that_is_run(page: Path) -> None:
    list(commands(name(page), fenced_lines(page)))


@pytest.mark.parametrize(
    "line",
    [Line(7, "text", "calr train -d veri"), Line(7, "bash", "cargo build")],
    ids=lambda line: line.language,
)
def test_a_command_that_nothing_would_run_is_noticed(line: Line) -> None:
    with pytest.raises(AssertionError, match=r"^page\.md:7: "):
        list(commands("page.md", [line]))


@pytest.mark.e2e
@pytest.mark.parametrize("page", STORIES, ids=name)
def test_commands_of(page: Path, folder: Path, data: Path) -> None:
    shown = list(commands(name(page), fenced_lines(page)))
    for file, text in files_of(page).items():
        (folder / file).write_text(text, encoding="utf-8")
    if shown and not any(text.startswith("calr prepare-data") for _, text in shown):
        run(["prepare-data", "--root", str(data)], "what the page takes for granted")
    for number, text in shown:
        words = [re.sub(r"^/data\b", str(data), word) for word in shlex.split(text, comments=True)[1:]]
        target = words[-1] if words[-2:-1] == [">"] else None
        words = words[:-2] if target else words
        if resumes(words) and "--set" not in words:
            interrupt(folder / words[words.index("--resume") + 1])
        answer = run(words, f"{name(page)}:{number}: {text}")
        if target:
            (folder / target).write_text(answer.stdout, encoding="utf-8")


def run(words: list[str], where: str) -> Answer:
    """Run a command that has to succeed, after its error if it needs something."""
    for need in NEEDS:
        if need.there or not re.search(need.pattern, " ".join(words)):
            continue
        answer = calr(words)
        errors = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
        assert (answer.exit_code, len(errors)) == (1, 1), f"{where}\n{answer.stderr}"
        assert re.search(need.error, errors[0]), f"{where} without {need.what}: {errors[0]}"
        if need.without is None:
            return answer
        words = need.without(words)
    answer = calr(smaller(words))
    assert answer.exit_code == 0, f"{where}\n{answer.stderr}"
    return answer
