"""The published ImageNet weights: their addresses, their hashes, and the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torchvision.models import get_model_weights

from calr_cli.downloads import Check, Digest, DriveFolderFile, Source, adopt_file, download
from calr_cli.errors import WeightsError
from calr_cli.events import Reporter
from calr_cli.files import calr_home
from calr_cli.models.backbones import ARCHS, IBN_BASE, TINY, check_arch
from calr_cli.models.network_check import NetworkCheck


@dataclass(frozen=True)
class Release:
    """A published weight file.

    Attributes:
        url: Address at the publisher.
        sha256: Hash of the file, or the first digits of the hash, hexadecimal.
        mebibytes: Size of the file as the publisher states it.
        older: Source of an earlier file of the same network, whose hash nobody has published.
    """

    url: str
    sha256: str
    mebibytes: float | None = None
    older: DriveFolderFile | None = None

    @property
    def file_name(self) -> str:
        """Name of the file, at the publisher and in the cache."""
        return urlsplit(self.url).path.rsplit("/", 1)[-1]


def _release(url: str, mebibytes: float | None = None, older: DriveFolderFile | None = None) -> Release:
    # Both publishers put the first eight digits of the hash at the end of the name.
    return Release(url, url.removesuffix(".pth").rsplit("-", 1)[-1], mebibytes, older)


def _torchvision(arch: str) -> Release:
    # DEFAULT would be the second, differently trained weights for several of them.
    weights = get_model_weights(arch).IMAGENET1K_V1
    return _release(weights.url, weights.meta.get("_file_size"))


IBN_RELEASE = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"

RELEASES: dict[str, Release] = {
    **{arch: _torchvision(arch) for arch in ARCHS if arch not in (*IBN_BASE, TINY)},
    "resnet50": Release(
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        _torchvision("resnet50").mebibytes,
    ),
    "resnet_ibn50a": _release(
        IBN_RELEASE + "resnet50_ibn_a-d9d0bb7b.pth",
        older=DriveFolderFile("1thS2B8UOSBi_cJX6zRy6YYRwz_nVFI_S", "resnet50_ibn_a.pth.tar"),
    ),
    "resnet_ibn101a": _release(IBN_RELEASE + "resnet101_ibn_a-59ea0ac6.pth"),
}
"""The ImageNet weights of each architecture that has some."""


def cached_weights(arch: str) -> Path:
    """The file with the ImageNet weights of ``arch``, in calr's own folder or else in that of torch hub.

    Raises:
        ConfigError: ``arch`` is unknown.
        WeightsError: There is no such file, or its content is wrong, or nobody has published weights.
    """
    check_released(arch)
    folders = [_folder(), Path(torch.hub.get_dir()) / "checkpoints"]
    damaged = []
    for form in _forms(arch):
        for path in [folder / form.name for folder in folders]:
            if path.is_file():
                if not (problem := form.check.problem(path)):
                    return path
                damaged.append(f"{path} {problem}")
    if damaged:
        problem = f"the ImageNet weights of {arch} are damaged: {damaged[0]}"
    else:
        places = " nor ".join(str(folder) for folder in folders)
        problem = f"no ImageNet weights of {arch}: {RELEASES[arch].file_name} is neither in {places}"
    raise WeightsError(problem, f"Get them with: calr fetch-pretrained -a {arch}")


def check_released(arch: str) -> None:
    """Raise unless somebody has published ImageNet weights of ``arch``.

    Raises:
        ConfigError: ``arch`` is unknown.
        WeightsError: Nobody has.
    """
    check_arch(arch)
    if arch not in RELEASES:
        raise WeightsError(
            f"nobody has published ImageNet weights of {arch}",
            "Start from random weights, --pretrained none, or from a file of your own, --pretrained FILE",
        )


def fetch_pretrained(arch: str, reporter: Reporter, mirrors: Sequence[str] = ()) -> Path:
    """Download the ImageNet weights of ``arch`` unless they are cached; return the file.

    Args:
        arch: One of ``ARCHS``.
        reporter: Receiver of progress, retries, and a warning about a file without a published hash.
        mirrors: Addresses of folders with the publisher's files, tried in this order before the publisher.

    Raises:
        ConfigError: ``arch`` is unknown.
        WeightsError: No source delivered the right file (one line each), or the cache cannot be written.
    """
    check_released(arch)
    try:
        return cached_weights(arch)
    except WeightsError:
        url = RELEASES[arch].url
    by_hand = f"calr fetch-pretrained -a {arch} --file FILE"
    hint = f"Try again later, or get {url} elsewhere and give it with: {by_hand}"
    problems: list[str] = []
    for form in _forms(arch, mirrors):
        target = _folder() / form.name
        title = f"downloading {form.name}"
        try:
            download(form.sources, target, form.check, title, reporter, WeightsError, hint)
        except WeightsError as error:
            problems += error.problems
            hint = error.hint
        else:
            form.report(reporter)
            return target
    raise WeightsError(problems, hint)


def adopt_pretrained(arch: str, path: Path, reporter: Reporter) -> Path:
    """Copy a file that was fetched by hand into the cache, after the same checks; return its path there.

    Raises:
        ConfigError: ``arch`` is unknown.
        WeightsError: The file is not the published one or cannot be read, or the cache cannot be written.
    """
    check_released(arch)
    problems: list[str] = []
    for form in _forms(arch):
        target = _folder() / form.name
        try:
            adopt_file(path, target, form.check, WeightsError)
        except WeightsError as error:
            problems += error.problems
        else:
            form.report(reporter)
            return target
    hint = f"The right file is at {RELEASES[arch].url}; weights of your own are for --pretrained FILE"
    raise WeightsError(list(dict.fromkeys(problems)), hint)


@dataclass(frozen=True)
class _Form:
    """One of the files in which the weights of an architecture are published."""

    arch: str
    name: str
    check: Check
    sources: Sequence[Source]

    def report(self, reporter: Reporter) -> None:
        """Report how much the check proves."""
        if not isinstance(self.check, Digest):
            reporter.warning(
                f"{self.name} has no published hash: it loads safely and its keys and shapes are those of "
                f"{self.arch}, but it may be of another training than {RELEASES[self.arch].file_name}"
            )


def _forms(arch: str, mirrors: Sequence[str] = ()) -> list[_Form]:
    """The files of a release, the preferred one first."""
    release = RELEASES[arch]
    name = release.file_name
    sources = [*(f"{mirror.rstrip('/')}/{name}" for mirror in mirrors), release.url]
    forms = [_Form(arch, name, Digest("sha256", release.sha256), sources)]
    if release.older:
        forms.append(_Form(arch, release.older.name, NetworkCheck(arch), [release.older]))
    return forms


def _folder() -> Path:
    return calr_home() / "weights"
