"""The published ImageNet weight files: where they come from, their hashes, and the cache."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torchvision.models import get_model_weights

from calr_cli.errors import WeightsError
from calr_cli.events import Reporter
from calr_cli.files import atomic_write, calr_home
from calr_cli.models.backbones import ARCHS, IBN_BASE, check_arch

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Release:
    """A published weight file; ``sha256`` is its hash or the first digits of it, hexadecimal."""

    url: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Name of the file, here and there."""
        return urlsplit(self.url).path.rsplit("/", 1)[-1]

    def matches(self, path: Path) -> bool:
        """Whether the content of ``path`` is that of the release."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest().startswith(self.sha256)


def _release(url: str) -> Release:
    # Both publishers put the first eight digits of the hash at the end of the name.
    return Release(url, url.removesuffix(".pth").rsplit("-", 1)[-1])


IBN_RELEASE = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"

RELEASES: dict[str, Release] = {
    # DEFAULT would be the second, differently trained weights for several of them.
    **{arch: _release(get_model_weights(arch).IMAGENET1K_V1.url) for arch in ARCHS if arch not in IBN_BASE},
    "resnet50": Release(
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
    "resnet_ibn50a": _release(IBN_RELEASE + "resnet50_ibn_a-d9d0bb7b.pth"),
    "resnet_ibn101a": _release(IBN_RELEASE + "resnet101_ibn_a-59ea0ac6.pth"),
}
"""The ImageNet weights of each architecture."""


def cached_weights(arch: str) -> Path:
    """The file with the ImageNet weights of ``arch``: in calr's own folder, else in torch hub's.

    Raises:
        ConfigError: ``arch`` is unknown.
        WeightsError: No such file, or only with another content.
    """
    check_arch(arch)
    release = RELEASES[arch]
    folders = [calr_home() / "weights", Path(torch.hub.get_dir()) / "checkpoints"]
    present = [path for folder in folders if (path := folder / release.file_name).is_file()]
    for path in present:
        if release.matches(path):
            return path
    if present:
        problem = f"the ImageNet weights of {arch} are damaged: {present[0]} has the wrong sha256"
    else:
        places = " nor ".join(str(folder) for folder in folders)
        problem = f"no ImageNet weights of {arch}: {release.file_name} is neither in {places}"
    raise WeightsError(problem, f"Get them with: calr fetch-pretrained -a {arch}")


def fetch_pretrained(arch: str, reporter: Reporter) -> Path:
    """Download the ImageNet weights of ``arch`` unless they are cached; return the file.

    The file appears under its name only whole and with the right hash.

    Raises:
        ConfigError: ``arch`` is unknown.
        WeightsError: The server cannot be reached or refuses, the download breaks off, its hash is
            wrong, or the cache folder cannot be written.
    """
    try:
        return cached_weights(arch)
    except WeightsError:
        release = RELEASES[arch]
    target = calr_home() / "weights" / release.file_name
    try:
        with atomic_write(target) as temporary:
            _download(release, temporary, reporter)
    except OSError as error:
        hint = "Free some space there, or point CALR_HOME at another folder"
        raise WeightsError(f"cannot write {target}: {error.strerror or error}", hint) from error
    return target


def _download(release: Release, path: Path, reporter: Reporter) -> None:
    by_hand = f"Try again, or get it elsewhere and put it into {path.parent}"
    response = _open(release.url, by_hand)
    total, received = int(response.headers.get("Content-Length") or 0), 0
    with (
        response,
        reporter.progress(f"downloading {release.file_name}", total, "bytes") as progress,
        path.open("wb") as file,
    ):
        for chunk in _chunks(response, release.url, by_hand):
            file.write(chunk)
            received += len(chunk)
            progress.advance(len(chunk))
    if received < total:
        raise WeightsError(f"{release.url} broke off after {received} of {total} bytes", by_hand)
    if not release.matches(path):
        problem = f"{release.url} has the wrong sha256: expected {release.sha256[:8]}..., nothing was kept"
        raise WeightsError(problem, by_hand)


def _open(url: str, hint: str) -> HTTPResponse:
    try:
        response: HTTPResponse = urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        raise WeightsError(f"{url} answers {error.code} {error.reason}", hint) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"cannot reach {url}: {getattr(reason, 'strerror', None) or reason}", hint
        ) from error
    return response


def _chunks(response: HTTPResponse, url: str, hint: str) -> Iterator[bytes]:
    """Read errors are told apart here from the write errors of the loop that takes the chunks."""
    while True:
        try:
            chunk = response.read(CHUNK_BYTES)
        except (OSError, HTTPException) as error:
            raise WeightsError(f"{url} broke off: {error}", hint) from error
        if not chunk:
            return
        yield chunk
