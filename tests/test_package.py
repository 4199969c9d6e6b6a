"""The package as it is published: what is in it, and that it works without the checkout around it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.docs.pages import REPOSITORY

UV = str(Path(sys.executable).with_name("uv"))

pytestmark = pytest.mark.e2e

SHORT = [f"--set={stage}.{size}" for stage in ("intra", "inter") for size in ("epochs=1", "iters=2")]
SHORT += ["--set=data.height=32", "--set=data.width=32", "--set=evaluation.monitor_every=0"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the archive and the wheel, built from a copy of the checkout with stray files in it."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("calr_cli", "tests", "benchmarks", "docs"):
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in filter(Path.is_file, REPOSITORY.iterdir()):
        shutil.copy(file, copy)
    for stray in ("shared/data/0001_c1.jpg", "runs/veri/inter/1/model.pth", "calr_cli/cat.jpg"):
        (copy / stray).parent.mkdir(parents=True, exist_ok=True)
        (copy / stray).write_bytes(b"")
    target = tmp_path_factory.mktemp("built") / "dist"
    how = [
        "--quiet",
        "--offline",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        str(target),
    ]
    subprocess.run([UV, "build", *how, str(copy)], check=True, timeout=280)
    return target


def package_files() -> set[str]:
    files = filter(Path.is_file, (REPOSITORY / "calr_cli").rglob("*"))
    return {file.relative_to(REPOSITORY).as_posix() for file in files if file.suffix != ".pyc"}


def test_the_wheel_has_the_package_and_its_licence_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        [info] = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert {name for name in names if not name.startswith(info)} == package_files()
    assert {"calr_cli/py.typed", "calr_cli/report/templates/report.html"} < names
    assert f"{info}/licenses/LICENSE" in names
    assert metadata["License-Expression"] == "MIT"
    for extra in ("infomap", "faiss"):  # one is licensed under the GPL, and neither is needed
        needs = [need for need in metadata.get_all("Requires-Dist", []) if need.startswith(extra)]
        assert len(needs) == 1
        assert needs[0].endswith(f'; extra == "{extra}"')


def test_the_archive_has_what_the_wheel_is_built_from_and_nothing_else(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {file.name.partition("/")[2] for file in archive.getmembers() if file.isfile()}
    made = {name for name in names if name.startswith("calr_cli.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert names - made == package_files() | {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"}


class Installed:
    """An environment of its own with the wheel, which borrows all other packages from this one."""

    def __init__(self, folder: Path, dist: Path, without: tuple[str, ...] = ()) -> None:
        self.folder, self.home = folder, dist.parent / "home"  # the dataset is drawn once
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
        packages = next((folder / "venv").glob("[Ll]ib/**/site-packages"))
        paths = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
        (packages / "borrowed.pth").write_text("\n".join(paths) + "\n")  # comes after the folder itself
        for name in without:
            (packages / f"{name}.py").write_text("raise ImportError\n")
        how = ["--quiet", "--offline", "--no-deps", "--python", str(folder / "venv")]
        subprocess.run([UV, "pip", "install", *how, str(next(dist.glob("*.whl")))], check=True, timeout=280)
        self.command = next((folder / "venv").glob("*/calr*"))

    def calr(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [str(self.command), *words],
            cwd=self.folder,
            env={**environment, "CALR_HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )


def test_the_installed_demo(dist: Path, tmp_path: Path) -> None:
    done = Installed(tmp_path, dist).calr("demo", "--output", "out", "--json", *SHORT)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert rows[0]["model"] == "untrained"
    assert all(0 < row["mAP"] < 100 for row in rows)


def test_without_the_extras_plus_works_and_the_demo_says_what_it_needs(dist: Path, tmp_path: Path) -> None:
    installed = Installed(tmp_path, dist, without=("infomap", "faiss"))
    done = installed.calr("demo", "--output", "out", *SHORT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "error: inter.clustering.method = infomap: Infomap is not installed. Install it with: "
        "pip install 'calr-cli[infomap]', or do without it by --set inter.clustering.method=jaccard, as "
        "--recipe plus does"
    )
    assert not (tmp_path / "out").exists()

    done = installed.calr("train", "-d", "synthetic", "--recipe", "plus", "--output", "out", *SHORT)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "Infomap" in line]
    assert said == [
        "Infomap is not installed: calr finds the communities itself. Install it with: "
        "pip install 'calr-cli[infomap]'"
    ]
    assert (tmp_path / "out" / "inter" / "model.pth").is_file()
