"""What a command is asked for and where it works: values that the command makes of its flags, once."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calr_cli.cli.console import RichReporter, print_json, print_text
from calr_cli.cli.options import SettingFlags
from calr_cli.errors import ConfigError
from calr_cli.events import Reporter

if TYPE_CHECKING:  # torch takes seconds to import; `--help` and `--print-config` do without
    import torch

    from calr_cli.config.following import OwnImages
    from calr_cli.config.loading import ResolvedSettings


@dataclass(frozen=True)
class Machine:
    """Where a command works; a run may go on elsewhere.

    Attributes:
        gpus: Value of ``--gpus``.
        device: Of ``--device``.
        processes: Of ``--processes``.
        root: Of ``--root``.
        threads: Of ``--threads``.
    """

    gpus: str | None = None
    device: str | None = None
    processes: int | None = None
    root: Path | None = None
    threads: int | None = None

    def devices(self, reporter: Reporter) -> list[torch.device]:
        """The devices asked for; under torchrun, its processes know each other from here on.

        Raises:
            ConfigError: A device that is not there, or flags that contradict each other.
            WorkerError: The other processes cannot be reached.
        """
        from calr_cli.distributed.collectives import join
        from calr_cli.distributed.devices import choose_devices

        devices = choose_devices(self.gpus, self.device, self.processes, reporter)
        join(reporter=RichReporter(quiet=True))  # every process may have to say for whom it waits
        return devices

    def words(self) -> list[str]:
        """The flags again, for another command."""
        values = {
            "--gpus": self.gpus,
            "--device": self.device,
            "--processes": self.processes,
            "--root": self.root,
            "--threads": self.threads,
        }
        return [word for flag, value in values.items() if value is not None for word in (flag, str(value))]


@dataclass(frozen=True)
class Request:
    """The settings that a command is asked for, as they were typed.

    Attributes:
        dataset: Value of ``-d/--dataset``.
        config: Of ``--config``.
        recipe: Of ``--recipe``.
        assignments: ``KEY=VALUE`` texts of ``--set``.
        flags: Dotted key -> (flag, value) of the settings with a flag of their own.
        local_labels: Value of ``--local-labels``.
    """

    dataset: str | None = None
    config: Path | None = None
    recipe: str | None = None
    assignments: Sequence[str] = ()
    flags: SettingFlags = field(default_factory=dict)
    local_labels: Path | None = None

    def for_training(self) -> ResolvedSettings:
        """As `resolve`; with a user's own images settings follow these, and the recipe is that for them.

        Raises:
            As `resolve`; DataError: what was found out about the images is damaged.
        """
        from calr_cli.config.following import own_images
        from calr_cli.config.loading import BY_DEFAULT

        resolved = self.resolve(own_images=own_images)
        labels, start = self.local_labels, "inter.start"
        if labels is None or resolved.origins[start] != BY_DEFAULT or labels.with_name("model.pth").exists():
            return resolved
        return self.resolve({start: ("--local-labels without a network", "pretrained")}, own_images)

    def resolve(
        self,
        known: Mapping[str, tuple[str, Any]] | None = None,
        own_images: Callable[[str], OwnImages | None] = lambda name: None,
    ) -> ResolvedSettings:
        """The settings, with the dataset's canonical name.

        Args:
            known: Dotted key -> (origin, value) of settings that are no longer open.
            own_images: See `resolve_settings`.

        Raises:
            ConfigError: A wrong setting, no dataset, or one that does not exist.
        """
        from calr_cli.config.loading import resolve_settings
        from calr_cli.prepare.names import resolve_dataset_name

        name = None if self.dataset is None else resolve_dataset_name(self.dataset)
        flags = {**self.flags, **(known or {})}
        others = (self.config, self.assignments, flags, self.recipe, own_images)
        resolved = resolve_settings(name, *others)
        if resolved.origins["data.dataset"] in ("default", "preset synthetic"):
            raise no_dataset()
        named = resolved.settings.data.dataset
        canonical = resolve_dataset_name(named)
        return resolved if canonical == named else resolve_settings(canonical, *others)


def no_dataset() -> ConfigError:
    """The answer to a command that does not know its dataset."""
    from calr_cli.prepare.datasets import DATASET_NAMES
    from calr_cli.prepare.names import own_dataset_names

    names = ", ".join((*own_dataset_names(), *DATASET_NAMES))
    return ConfigError("which dataset? None was given", f"Give -d NAME; datasets: {names}")


def show_config(resolved: ResolvedSettings, as_json: bool) -> None:
    """Print all settings and where each came from."""
    from calr_cli.config.loading import print_config

    if as_json:
        print_json({"settings": resolved.settings.model_dump(), "origins": dict(resolved.origins)})
    else:
        print_text(print_config(resolved))


def refuse_beside_resume(
    request: Request, print_config: bool, output: Path | None, seeds: int | None = None
) -> None:
    """Keep a run as it was begun, but for what ``--set`` changes on purpose.

    Raises:
        ConfigError: Flags of a new run, or of settings, which are to be given by ``--set``.
    """
    of_a_new_run = {
        "-d/--dataset": request.dataset,
        "--config": request.config,
        "--recipe": request.recipe,
        "--print-config": print_config,
        "--output": output,
        "--seeds": seeds,
    }
    if given := [flag for flag, value in of_a_new_run.items() if value]:
        raise ConfigError(
            f"--resume continues a run as it was begun: {', '.join(given)} cannot be given beside it",
            "Leave that out, or start a new run",
        )
    if request.flags:
        words = {key: "true" if value is True else str(value) for key, (_, value) in request.flags.items()}
        changes = " ".join(f"--set {key}={shlex.quote(word)}" for key, word in words.items())
        names = ", ".join(flag for flag, _ in request.flags.values())
        raise ConfigError(
            f"--resume continues a run as it was begun: {names} would change its settings",
            f"To change them on purpose: {changes}",
        )
