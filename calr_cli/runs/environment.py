"""What a run was made with: program, machine, revision, command line."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from calr_cli.distributed.devices import describe_device, num_processes
from calr_cli.version import __version__

_PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "infomap",
    "faiss-gpu",
    "faiss-cpu",
    "pillow",
)

_GIT_SECONDS = 10


def environment(devices: Sequence[torch.device]) -> dict[str, Any]:
    """All that a run's results may depend on beside its settings.

    Args:
        devices: Of this machine, one for each process here.
    """
    return {
        "calr": __version__,
        "git": _revisions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "devices": [describe_device(device) for device in devices],
        "processes": num_processes(devices),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
        "started": _now(),
    }


def continued(devices: Sequence[torch.device]) -> dict[str, Any]:
    """What is written down when a run goes on.

    Args:
        devices: Of this machine, as in `environment`.
    """
    return {
        "time": _now(),
        "command": sys.argv,
        "devices": [describe_device(device) for device in devices],
        "processes": num_processes(devices),
        "threads": torch.get_num_threads(),
        "torch": _version("torch"),
    }


def differing(before: dict[str, Any], devices: Sequence[torch.device]) -> list[str]:
    """What differs here from ``before``, of that which the last bits of results depend on.

    Args:
        before: What `environment` said when the run was begun.
        devices: Of this machine.

    Returns:
        For instance ``["processes 1, not 2", "torch 2.9.0, not 2.8.0"]``.
    """
    before_torch = before.get("packages", {}).get("torch")
    figures = [
        ("processes", num_processes(devices), before.get("processes")),
        ("threads", torch.get_num_threads(), before.get("threads")),
        ("torch", _version("torch"), before_torch),
    ]
    return [f"{name} {is_}, not {was}" for name, is_, was in figures if was is not None and is_ != was]


def _revisions() -> dict[str, Any]:
    """Git revisions of calr's own checkout and of the current folder, each where there is one."""
    found: dict[str, Any] = {}
    package = Path(__file__).parent.parent
    # An installed calr may lie in a folder below somebody else's repository.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None:
        found["calr"] = _revision(package)
    found["here"] = _revision(Path.cwd())
    return {name: revision for name, revision in found.items() if revision is not None}


def _revision(folder: Path) -> dict[str, Any] | None:
    revision = _git(folder, "rev-parse", "HEAD")
    if revision is None:
        return None
    return {
        "revision": revision,
        "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no")),
    }


def _git(folder: Path, *words: str) -> str | None:
    """What git answers, None where there is no git, no repository or no such file."""
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
