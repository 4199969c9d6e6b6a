"""The flags that commands share, each written once, and what they mean as settings.

Flags that are settings are read as text: the schema alone judges values, so that a wrong value gets
the same words wherever it was given, together with all other wrong ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from calr_cli.cli import completion
from calr_cli.config.wording import LEAVES, choices

SETTING_FLAGS: dict[str, tuple[str, str]] = {
    "arch": ("model.arch", "-a/--arch"),
    "pooling": ("model.pooling", "--pooling"),
    "pretrained": ("model.pretrained", "--pretrained"),
    "height": ("data.height", "--height"),
    "width": ("data.width", "--width"),
    "workers": ("data.workers", "-j/--workers"),
    "seed": ("seed", "--seed"),
    "deterministic": ("deterministic", "--deterministic"),
    "oracle": ("inter.selection.oracle", "--oracle"),
    "plugin": ("plugin", "--plugin"),
    "memory_limit": ("memory_limit_gb", "--memory-limit"),
    "batch_size": ("{stage}.batch_size", "-b/--batch-size"),
    "num_instances": ("{stage}.num_instances", "--num-instances"),
    "epochs": ("{stage}.epochs", "--epochs"),
    "iters": ("{stage}.iters", "--iters"),
}
"""Parameter of a command -> setting (``{stage}``: the command's own section) and the flag's text."""


SettingFlags = Mapping[str, tuple[str, str | bool]]
"""Dotted key -> (flag, value) of the settings that a command was given by flags of their own."""


def setting_flags(context: typer.Context, stage: str) -> SettingFlags:
    """The settings among the flags that a command was given.

    Args:
        context: Of the command.
        stage: Section that the stage's own flags belong to: ``intra``, ``inter`` or ``evaluation``.
    """
    return {
        key.format(stage=stage): (flag, context.params[name])
        for name, (key, flag) in SETTING_FLAGS.items()
        if context.params.get(name) is not None
    }


def meaning(key: str) -> str:
    """A setting in the schema's words, without the source of its default."""
    field = LEAVES[key]
    text = re.sub(r" \[\w+\]$", "", field.description or "")
    return f"{text}: {', '.join(choices(field))}" if choices(field) else text


def setting(key: str, *names: str, metavar: str) -> Any:
    """The option of a setting; without it the preset or the default decides."""
    return typer.Option(
        *names,
        help=meaning(key),
        metavar=metavar,
        autocompletion=completion.choices_of(key),
        rich_help_panel="Settings",
    )


def switch(key: str, name: str) -> Any:
    """The option that turns a setting on."""
    return typer.Option(name, help=meaning(key), show_default=False, rich_help_panel="Settings")


Dataset = Annotated[
    str | None,
    typer.Option(
        "-d",
        "--dataset",
        metavar="NAME",
        help="dataset, prepared or built in",
        autocompletion=completion.datasets,
        rich_help_panel="Settings",
    ),
]
Arch = Annotated[str | None, setting("model.arch", "-a", "--arch", metavar="ARCH")]
Pooling = Annotated[str | None, setting("model.pooling", "--pooling", metavar="NAME")]
Plugin = Annotated[str | None, setting("plugin", "--plugin", metavar="FILE")]
Pretrained = Annotated[str | None, setting("model.pretrained", "--pretrained", metavar="WHICH")]
Height = Annotated[str | None, setting("data.height", "--height", metavar="PIXELS")]
Width = Annotated[str | None, setting("data.width", "--width", metavar="PIXELS")]
Workers = Annotated[str | None, setting("data.workers", "-j", "--workers", metavar="N")]
Seed = Annotated[str | None, setting("seed", "--seed", metavar="N")]
Deterministic = Annotated[bool | None, switch("deterministic", "--deterministic")]
Oracle = Annotated[bool | None, switch("inter.selection.oracle", "--oracle")]
BatchSize = Annotated[str | None, setting("inter.batch_size", "-b", "--batch-size", metavar="N")]
ExtractionBatchSize = Annotated[
    str | None, setting("evaluation.batch_size", "-b", "--batch-size", metavar="N")
]
MemoryLimit = Annotated[str | None, setting("memory_limit_gb", "--memory-limit", metavar="GB")]
NumInstances = Annotated[str | None, setting("inter.num_instances", "--num-instances", metavar="N")]
Epochs = Annotated[str | None, setting("inter.epochs", "--epochs", metavar="N")]
Iters = Annotated[str | None, setting("inter.iters", "--iters", metavar="N")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="any setting; may be repeated", rich_help_panel="Settings"
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="settings in YAML, in place of the preset",
        rich_help_panel="Settings",
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="calr, the published method, or plus, more accurate at the same cost; default: plus for own "
        "images, calr for other datasets",
        rich_help_panel="Settings",
    ),
]
PrintConfig = Annotated[
    bool,
    typer.Option(
        "--print-config",
        help="print all settings and where each came from, then stop",
        rich_help_panel="Settings",
    ),
]
Gpus = Annotated[
    str | None,
    typer.Option("--gpus", metavar="LIST", help="CUDA devices by number, as 0,1", rich_help_panel="Where"),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="KIND",
        help="cpu or cuda; by default CUDA where there is any",
        rich_help_panel="Where",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        "--processes",
        metavar="N",
        help="with --device cpu: processes that share it, for tests",
        rich_help_panel="Where",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        help="threads that compute, all processes together; default: the cores that calr may use",
        rich_help_panel="Where",
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        metavar="N",
        help="repeat with N seeds, the first one and those after it; report mean and spread",
        rich_help_panel="Settings",
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="folder of the datasets, in place of $CALR_DATA and the remembered one",
        rich_help_panel="Where",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="DIR",
        help="folder of the run, a new one; default: runs/DATASET/STAGE/TIME",
        rich_help_panel="Where",
    ),
]
OutputOfBoth = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="DIR",
        help="a new folder, for the runs intra and inter; default: runs/DATASET/STAGE/TIME, "
        "with --seeds runs/DATASET/seeds/TIME",
        rich_help_panel="Where",
    ),
]
OutputOfDemo = Annotated[
    Path | None,
    typer.Option(
        "--output", metavar="DIR", help="a new folder for everything it makes", rich_help_panel="Where"
    ),
]
ResumeRun = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        metavar="RUN_FOLDER",
        help="continue the interrupted run in this folder",
        autocompletion=completion.runs,
        rich_help_panel="Where",
    ),
]
ResumeBoth = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        metavar="DIR",
        help="continue what an interrupted `calr train --output DIR` left to do",
        rich_help_panel="Where",
    ),
]
LocalLabels = Annotated[
    Path | None,
    typer.Option(
        "--local-labels",
        metavar="PATH",
        help="local_labels.csv, or a folder of cam<k>/pseudo_label.npy; default: the newest of the dataset",
        rich_help_panel="Where",
    ),
]
Tensorboard = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="write curves and features for TensorBoard into the run folder as well; a resumed run goes on "
        "with that",
        rich_help_panel="Output",
    ),
]
CameraPattern = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="REGEX",
        help="what to find in the paths of images, with the group camid, as in `calr prepare-data`",
    ),
]
PerCamera = Annotated[
    bool,
    typer.Option(
        "--per-camera",
        help="shift and scale the features of each camera alike, by the images given: similarities "
        "then follow cameras less",
    ),
]
Rerank = Annotated[bool, typer.Option("--rerank", help="re-rank with k-reciprocal neighbours")]
Json = Annotated[
    bool, typer.Option("--json", help="print one JSON object on stdout", rich_help_panel="Output")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="no progress, only warnings and errors", rich_help_panel="Output")
]
