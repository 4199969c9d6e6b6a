"""The published weights to start from: their addresses, their hashes, and the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torchvision.models import get_model_weights

from calr_cli.downloads import Check, Digest, DriveFile, DriveFolderFile, Source, adopt_file, download
from calr_cli.errors import WeightsError
from calr_cli.events import Reporter
from calr_cli.files import calr_home
from calr_cli.models.backbones import CONVOLUTIONAL, IBN_BASE, TINY, check_arch
from calr_cli.models.network_check import NetworkCheck, VitCheck


@dataclass(frozen=True)
class Release:
    """A published weight file.

    Attributes:
        url: Address at the publisher; without a hash only for people.
        sha256: Hash of the file, or the first digits of the hash, hexadecimal; None: not published.
        mebibytes: Size of the file as the publisher states it.
        older: Source of an earlier file of the same network, whose hash nobody has published.
        name: Name of the file; None: the end of ``url``.
        kind: Which images it was trained on: ``imagenet`` or ``person``.
        drive: Source of a file without a hash.
        licence: What the publisher states.
    """

    url: str
    sha256: str | None
    mebibytes: float | None = None
    older: DriveFolderFile | None = None
    name: str | None = None
    kind: str = "imagenet"
    drive: DriveFile | None = None
    licence: str = "see source"

    @property
    def file_name(self) -> str:
        """Name of the file, at the publisher and in the cache."""
        return self.name or urlsplit(self.url).path.rsplit("/", 1)[-1]

    @property
    def words(self) -> str:
        """What the file has, in words."""
        return "ImageNet weights" if self.kind == "imagenet" else "person-pretrained weights"

    @property
    def sources(self) -> list[str]:
        """Where it is, for people."""
        return [str(source) for source in (self.drive or self.url, self.older) if source]


def _release(url: str, mebibytes: float | None = None, older: DriveFolderFile | None = None) -> Release:
    # Both publishers put the first eight digits of the hash at the end of the name.
    return Release(url, url.removesuffix(".pth").rsplit("-", 1)[-1], mebibytes, older)


def _torchvision(arch: str) -> Release:
    # DEFAULT would be the second, differently trained weights for several of them.
    weights = get_model_weights(arch).IMAGENET1K_V1
    return _release(weights.url, weights.meta.get("_file_size"))


def _of_persons(name: str, drive_id: str | None = None) -> Release:
    drive = None if drive_id is None else DriveFile(drive_id)
    return Release(
        "https://github.com/damo-cv/TransReID-SSL",
        None,
        name=name,
        kind="person",
        drive=drive,
        licence="weights: none stated (code: MIT)",
    )


IBN_RELEASE = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"

RELEASES: dict[str, Release] = {
    **{arch: _torchvision(arch) for arch in CONVOLUTIONAL if arch not in (*IBN_BASE, TINY)},
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
    "vit_small": _of_persons("vit_small_cfs_lup.pth", "1ODxA7mJv17UfzwfXtY9dTWNsYghoNWGB"),
    "vit_base": _of_persons("vit_base_lup.pth"),
    "vit_small_ics": _of_persons("vit_small_ics_cfs_lup.pth", "18FL9JaJNlo15-UksalcJRXX-0dgo4Mz4"),
}
"""The weights of each architecture that somebody has published, which `calr fetch-pretrained` gets."""


def cached_weights(arch: str, kind: str | None = None) -> Path:
    """The file with the published weights of ``arch``, in calr's own folder or else in that of torch hub.

    Args:
        arch: One of ``ARCHS``.
        kind: ``imagenet`` or ``person``; None: whatever there is.

    Raises:
        ConfigError: ``arch`` is unknown.
        WeightsError: There is no such file, or its content is wrong, or nobody has published weights.
    """
    check_released(arch)
    release = RELEASES[arch]
    if kind not in (None, release.kind):
        raise WeightsError(
            f"--pretrained {kind}: calr knows no such published weights of {arch}, only {release.words}",
            f"Give --pretrained {release.kind}, none, or a file",
        )
    folders = [_folder(), Path(torch.hub.get_dir()) / "checkpoints"]
    damaged = []
    for form in _forms(arch):
        for path in [folder / form.name for folder in folders]:
            if path.is_file():
                if not (problem := form.check.problem(path)):
                    return path
                damaged.append(f"{path} {problem}")
    if damaged:
        problem = f"the {release.words} of {arch} are damaged: {damaged[0]}"
    else:
        places = " nor ".join(str(folder) for folder in folders)
        problem = f"no {release.words} of {arch}: {release.file_name} is neither in {places}"
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
    """Download the published weights of ``arch`` unless they are cached; return the file.

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
        url = RELEASES[arch].sources[0]
    by_hand = f"calr fetch-pretrained -a {arch} --file FILE"
    hint = f"Try again later, or get {url} elsewhere and give it with: {by_hand}"
    problems: list[str] = []
    for form in _forms(arch, mirrors):
        if not form.sources:
            raise WeightsError(
                f"no link to {RELEASES[arch].words} of {arch} is known",
                f"Ask the publisher ({url}) for the file, and give it with: {by_hand}",
            )
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
    hint = f"The right file is at {RELEASES[arch].sources[0]}; weights of your own are for --pretrained FILE"
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
        release = RELEASES[self.arch]
        if release.kind == "person":
            reporter.note(f"licence: {release.licence}")
        if not isinstance(self.check, Digest):
            other = "" if self.name == release.file_name else f" than {release.file_name}"
            reporter.warning(
                f"{self.name} has no published hash: it loads safely and its keys and shapes are those of "
                f"{self.arch}, but it may be of another training{other}"
            )


def _forms(arch: str, mirrors: Sequence[str] = ()) -> list[_Form]:
    """The files of a release, the preferred one first."""
    release = RELEASES[arch]
    name = release.file_name
    mirrored = [f"{mirror.rstrip('/')}/{name}" for mirror in mirrors]
    if release.sha256 is None:
        own: list[Source] = [] if release.drive is None else [release.drive]
        return [_Form(arch, name, VitCheck(arch), [*mirrored, *own])]
    sources = [*mirrored, release.url]
    forms = [_Form(arch, name, Digest("sha256", release.sha256), sources)]
    if release.older:
        forms.append(_Form(arch, release.older.name, NetworkCheck(arch), [release.older]))
    return forms


def _folder() -> Path:
    return calr_home() / "weights"
