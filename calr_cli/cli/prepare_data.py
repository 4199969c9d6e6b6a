"""``calr prepare-data``: check images once, so that training finds them by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from calr_cli.cli import options
from calr_cli.cli.cards import show_card
from calr_cli.cli.console import RichReporter, print_json, print_text
from calr_cli.cli.next_steps import print_next
from calr_cli.errors import ConfigError

OWN = "Your own images"


def prepare_data(
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="DIR",
            help="folder of the published datasets, remembered; default: $CALR_DATA, else the remembered one",
        ),
    ] = None,
    archive: Annotated[
        list[Path] | None,
        typer.Option(
            "--archive",
            metavar="FILE",
            help="zip or tar of a published dataset, of any name, to unpack below the root; repeatable",
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="fetch what is not under the root and open to all: Market-1501")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="decode all images again, changed or not, and list the broken ones"),
    ] = False,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="folder of images", rich_help_panel=OWN)
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--pattern",
            metavar="REGEX",
            help="for --images: what to find in their paths, with the groups camid, pid, split that are "
            "known; default: all images, as of one camera",
            rich_help_panel=OWN,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="table (CSV, TSV, Parquet) with a column path and, if known, camid, pid, split",
            rich_help_panel=OWN,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="what -d is to call them; default: the folder's or file's name",
            rich_help_panel=OWN,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="SHARE",
            help="share of identities that train, the others test, as 0.5",
            rich_help_panel=OWN,
        ),
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option("--seed", metavar="N", help="of the draw of --split; default: 1", rich_help_panel=OWN),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    r"""Find, unpack and check datasets: the published ones under --root, or your own images.

    Examples:
        calr prepare-data --root /data
        calr prepare-data --images photos/ --name shop --pattern 'cam(?P<camid>\d+)'
    """
    reporter = RichReporter(quiet)
    check_combination(
        root=root,
        archive=archive,
        download=download,
        images=images,
        csv=csv,
        pattern=pattern,
        name=name,
        split=split,
        seed=seed,
    )
    share = None if split is None else parsed_share(split)
    draw = 1 if seed is None else parsed_seed(seed)
    from calr_cli.prepare.own_images import prepare_own_images, prepare_own_table
    from calr_cli.prepare.published import prepare_archives, prepare_datasets, remembered_root

    if images is not None:
        cards = [prepare_own_images(images, name, pattern, share, draw, reporter, verify)]
    elif csv is not None:
        cards = [prepare_own_table(csv, name, share, draw, reporter, verify)]
    else:
        variable = os.environ.get("CALR_DATA")
        folder = root or (Path(variable).expanduser() if variable else remembered_root())
        if folder is None:
            raise ConfigError(
                "which folder? None was given before", "Give --root DIR, or --images DIR for your own"
            )
        if archive:
            cards = prepare_archives(archive, folder, reporter, verify=verify)
        else:
            cards = prepare_datasets(folder, reporter, download=download, verify=verify)
    if json:
        print_json({"datasets": [card.as_json() for card in cards]})
    else:
        for place, card in enumerate(cards):
            if place:
                print_text("")
            show_card(card, verify)
    print_next(quiet, ["train", "-d", cards[0].name])


def check_combination(**flags: object) -> None:
    """Refuse flags that contradict each other or need one that is missing.

    Raises:
        ConfigError: One line per problem.
    """
    given = {flag for flag, value in flags.items() if value not in (None, False, (), [])}
    sources = [f"--{flag}" for flag in ("root", "images", "csv") if flag in given]
    problems = []
    if len(sources) > 1:
        problems.append(f"{' and '.join(sources)} contradict each other: give one of them")
    if own := [flag for flag in ("images", "csv") if flag in given]:
        problems += [
            f"--{flag} is for published datasets, --{own[0]} for your own images: give one of them"
            for flag in ("archive", "download")
            if flag in given
        ]
    if {"archive", "download"} <= given:
        problems.append("--archive and --download contradict each other: give one of them")
    if "pattern" in given and "images" not in given:
        problems.append("--pattern is for --images DIR, which is not given")
    if not given & {"images", "csv"}:
        problems += [
            f"--{flag} is for your own images: it needs --images DIR or --csv FILE"
            for flag in ("name", "split", "seed")
            if flag in given
        ]
    elif "seed" in given and "split" not in given:
        problems.append("--seed is for --split SHARE, which is not given")
    if problems:
        raise ConfigError(problems)


def parsed_share(text: str) -> float:
    """The number after ``--split``; whether it is a share is the data room's to say.

    Raises:
        ConfigError: It is none.
    """
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--split {text} is not a number", "Write for instance --split 0.5") from None


def parsed_seed(text: str) -> int:
    """The number after ``--seed``.

    Raises:
        ConfigError: It is none.
    """
    if not text.isdecimal():
        raise ConfigError(f"--seed {text} is not a whole number from 0", "Write for instance --seed 1")
    return int(text)
