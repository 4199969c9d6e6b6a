"""``calr gallery``: who was seen before, kept in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calr_cli.cli import completion, options
from calr_cli.cli.console import print_json, print_table, print_text, reporter_for
from calr_cli.cli.embed import Images
from calr_cli.cli.trained import (
    Threshold,
    calibrate_words,
    open_trained,
    similarity_threshold,
    tell_calibration,
)
from calr_cli.errors import ConfigError, DataError

if TYPE_CHECKING:
    from calr_cli.use.assigning import Answer
    from calr_cli.use.gallery_file import GalleryFile

SUGGESTED = 10

Gallery = Annotated[Path, typer.Argument(metavar="GALLERY", help="the file")]
Identity = Annotated[str, typer.Argument(metavar="IDENTITY", help="number or name")]
Model = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="FILE",
        help="the model that made the gallery; default: where it was then",
        autocompletion=completion.models,
    ),
]


def create(
    context: typer.Context,
    gallery: Gallery,
    resume: Annotated[
        str,
        typer.Option(
            "--resume",
            metavar="FILE",
            help="model file, of calr or of another program",
            autocompletion=completion.models,
        ),
    ],
    arch: options.Arch = None,
    height: options.Height = None,
    width: options.Width = None,
    pooling: options.Pooling = None,
    device: options.Device = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make an empty gallery, for the features of one model.

    Example:
        calr gallery create shop.gallery --resume model.pth
    """
    from calr_cli.runs.find import find_model
    from calr_cli.use.gallery_file import SUFFIX, Maker, create_gallery
    from calr_cli.use.outputs import check_output

    reporter = reporter_for(quiet)
    check_output("GALLERY", gallery, (SUFFIX,), [resume])
    embedder = open_trained(resume, options.setting_flags(context, "evaluation"), device, reporter)
    where = str(find_model(resume, None).absolute())
    maker = Maker(embedder.key, embedder.precision, embedder.encoder.feature_dim, where)
    create_gallery(gallery, maker)
    if json:
        print_json({"gallery": str(gallery), **vars(maker)})
    else:
        print_table(["gallery", "model"], [[str(gallery), where]], numbers_from=2)


def add(
    context: typer.Context,
    gallery: Gallery,
    images: Images,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="who is on all of them, known or new"),
    ] = None,
    pattern: options.CameraPattern = None,
    resume: Model = None,
    arch: options.Arch = None,
    batch_size: options.ExtractionBatchSize = None,
    workers: options.Workers = None,
    height: options.Height = None,
    width: options.Width = None,
    pooling: options.Pooling = None,
    device: options.Device = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Add images of identities that you know: by --name, or by the column identity of a table.

    Examples:
        calr gallery add shop.gallery ada/ --name Ada
        calr gallery add shop.gallery identities.csv
    """
    from calr_cli.use.assigning import look_at
    from calr_cli.use.gallery_file import GalleryFile
    from calr_cli.use.gallery_model import require_model
    from calr_cli.use.image_lists import list_known_images

    reporter = reporter_for(quiet)
    known = list_known_images(images, reporter, pattern)
    whose = {path: name or facts.get("identity", "") for path, facts in known.items()}
    if not any(whose.values()):
        raise ConfigError(
            "who is on these images? Neither --name nor a column identity says it",
            f"Give one of them; `calr gallery assign {gallery} --add` finds out by itself",
        )
    known = {path: facts for path, facts in known.items() if whose[path]}  # without outliers
    if name is not None:
        with GalleryFile(gallery) as file:
            check_name(file, name)
    with GalleryFile(gallery) as file:
        maker = file.maker
        embedder = open_trained(
            resume or maker.path, options.setting_flags(context, "evaluation"), device, reporter
        )
        embedder = require_model(file, embedder)
    seen, failed = look_at(embedder, known, reporter)
    added = 0
    with GalleryFile(gallery, write=True) as file:
        numbers: dict[str, int] = {}
        for who in dict.fromkeys(whose[image.path] for image in seen):
            numbers[who] = known_or_new(file, who, is_name=name is not None)
            added += file.keep(numbers[who], [image for image in seen if whose[image.path] == who])
    result = {
        "gallery": str(gallery),
        "added": added,
        "there_already": len(seen) - added,
        "identities": sorted(set(numbers.values())),
        "failed": failed,
    }
    if json:
        print_json(result)
    else:
        cells = [str(gallery), *(f"{n:,}" for n in (added, len(seen) - added, len(set(numbers.values()))))]
        print_table(["gallery", "images added", "there already", "identities"], [cells])


def check_name(file: GalleryFile, name: str) -> None:
    """Raise if an identity cannot be called that.

    Raises:
        DataError: It is a number that no identity has.
    """
    if name.isdecimal():
        file.find(name)


def known_or_new(file: GalleryFile, who: str, is_name: bool) -> int:
    """The identity of a name, or a new one; the numbers of a table are that table's own and always new."""
    if not is_name and who.isdecimal():
        return file.new_identity()
    try:
        return file.find(who)
    except DataError:
        return file.new_identity(who)


def assign(
    context: typer.Context,
    gallery: Gallery,
    images: Images,
    threshold: Threshold = None,
    keep: Annotated[
        bool, typer.Option("--add", help="add the images, and new identities for those that are new")
    ] = False,
    pattern: options.CameraPattern = None,
    resume: Model = None,
    arch: options.Arch = None,
    batch_size: options.ExtractionBatchSize = None,
    workers: options.Workers = None,
    height: options.Height = None,
    width: options.Width = None,
    pooling: options.Pooling = None,
    memory_limit: options.MemoryLimit = None,
    device: options.Device = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say who is on new images: a known identity with its probability, or somebody new.

    The images of one track (column track of a table) are assigned together.

    Example:
        calr gallery assign shop.gallery today/ --add
    """
    from calr_cli.use.assigning import assign as answers_of
    from calr_cli.use.assigning import keep_answers, look_at, sightings_of
    from calr_cli.use.gallery_file import GalleryFile
    from calr_cli.use.gallery_model import require_model
    from calr_cli.use.image_lists import list_known_images
    from calr_cli.use.verdict import possible

    reporter = reporter_for(quiet)
    with GalleryFile(gallery) as file:
        model = resume or file.maker.path
        embedder = open_trained(model, options.setting_flags(context, "evaluation"), device, reporter)
        embedder = require_model(file, embedder)
        count = len(file)
    calibration = embedder.calibration
    prior = None if calibration is None else calibration.prior_of_search(max(1, count))
    least = similarity_threshold(threshold, calibration, prior or 0.5, model)
    if least is None:
        raise ConfigError(
            "from which similarity on is somebody known? This model is not calibrated",
            f"Give --threshold, such as 0.6, or calibrate it: {calibrate_words(model)}",
        )
    tell_calibration(calibration, prior, model, reporter)
    if possible(least, calibration, prior, reporter) is None:
        raise ConfigError(
            "everybody would be new by that threshold", "Give --threshold as a similarity, such as 0.6"
        )
    known = list_known_images(images, reporter, pattern)
    seen, failed = look_at(embedder, known, reporter)
    with GalleryFile(gallery, write=keep) as file:
        answers = answers_of(file, sightings_of(seen, known), embedder, least)
        made = keep_answers(file, answers) if keep else {}
        names = {one.number: one.name for one in file.identities()}
    rows = [row for answer in answers for row in rows_of(answer, names, made)]
    if json:
        print_json({"gallery": str(gallery), "threshold": least, "images": rows, "failed": failed})
    else:
        show_answers(rows)


def rows_of(answer: Answer, names: Mapping[int, str | None], made: Mapping[int, int]) -> list[dict[str, Any]]:
    """What is said of each image of a sighting."""
    number = answer.identity if answer.new is None else made.get(answer.new)
    said = {
        "identity": number,
        "name": None if number is None else names[number],
        "new": answer.new,
        "similarity": answer.similarity,
        "probability": answer.probability,
    }
    return [{"path": image.path, **said} for image in answer.sighting.images]


def show_answers(rows: list[dict[str, Any]]) -> None:
    """A line for each image; paths, long ones, come last."""
    from calr_cli.evaluation.calibration import in_percent

    cells = []
    for row in rows:
        who = "-" if row["identity"] is None else str(row["identity"])
        called = row["name"] or ("-" if row["new"] is None else f"new {row['new']}")
        similarity = "-" if row["similarity"] is None else f"{row['similarity']:.3f}"
        cells.append([who, called, similarity, in_percent(row["probability"]), row["path"]])
    print_table(["identity", "name", "similarity", "probability", "image"], cells, numbers_from=5)


def list_identities(gallery: Gallery, json: options.Json = False) -> None:
    """List the identities of a gallery.

    Example:
        calr gallery list shop.gallery
    """
    from calr_cli.use.gallery_file import GalleryFile

    with GalleryFile(gallery) as file:
        found = file.identities()
    if json:
        print_json({"gallery": str(gallery), "identities": [vars(one) for one in found]})
        return
    rows = [[str(one.number), one.name or "-", f"{one.images:,}", ", ".join(one.cameras)] for one in found]
    print_table(["identity", "name", "images", "cameras"], rows, numbers_from=4)


def show(
    gallery: Gallery,
    identity: Identity,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="write a page with the small pictures")
    ] = None,
    json: options.Json = False,
) -> None:
    """List the images of an identity.

    Example:
        calr gallery show shop.gallery Ada --html ada.html
    """
    from calr_cli.files import atomic_write
    from calr_cli.use.gallery_file import GalleryFile
    from calr_cli.use.outputs import PAGES, check_output

    if html is not None:
        check_output("--html", html, PAGES, [gallery])
    with GalleryFile(gallery) as file:
        number = file.find(identity)
        images = file.images_of(number)
    rows = [{"path": path, "camera": camera} for _, path, camera, _ in images]
    if json:
        print_json({"gallery": str(gallery), "identity": number, "images": rows})
    else:
        print_table(
            ["camera", "image"], [[row["camera"] or "-", row["path"]] for row in rows], numbers_from=2
        )
    if html is not None:
        from calr_cli.report.gallery_page import gallery_page

        with atomic_write(html) as temporary:
            temporary.write_text(gallery_page(f"{identity} in {gallery}", images), encoding="utf-8")


def merge(
    gallery: Gallery,
    identities: Annotated[
        list[str] | None,
        typer.Argument(metavar="IDENTITY", help="numbers or names: the first takes the images of the others"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Make several identities one; without any, list the pairs that look most like one.

    Examples:
        calr gallery merge shop.gallery
        calr gallery merge shop.gallery Ada 7
    """
    from calr_cli.use.assigning import look_like_one
    from calr_cli.use.gallery_file import GalleryFile

    if not identities:
        with GalleryFile(gallery) as file:
            pairs = look_like_one(file, SUGGESTED)
            names = {one.number: one.name or "-" for one in file.identities()}
        if json:
            columns = ("identity", "other", "similarity")
            print_json(
                {"gallery": str(gallery), "pairs": [dict(zip(columns, p, strict=True)) for p in pairs]}
            )
        else:
            rows = [[str(a), names[a], str(b), names[b], f"{value:.3f}"] for a, b, value in pairs]
            print_table(["identity", "name", "other", "name ", "mean similarity"], rows, numbers_from=4)
        return
    with GalleryFile(gallery, write=True) as file:
        into, *others = dict.fromkeys(file.find(who) for who in identities)
        if not others:
            raise ConfigError("merge needs two identities or more", "Give the others, too")
        file.merge(into, others)
    tell(json, gallery, {"identity": into, "merged": others}, f"{others} are identity {into} now")


def split(
    gallery: Gallery,
    identity: Identity,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image", metavar="PATH", help="an image of somebody else, as `show` writes it; may be repeated"
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Make a new identity of some images of one; without --image, of the half that differs most.

    Example:
        calr gallery split shop.gallery 7
    """
    import numpy as np

    from calr_cli.use.assigning import halves
    from calr_cli.use.gallery_file import GalleryFile

    with GalleryFile(gallery, write=True) as file:
        number = file.find(identity)
        images = file.images_of(number)
        if image:
            there = {path for _, path, _, _ in images}
            if missing := [f"identity {identity} has no image {path}" for path in image if path not in there]:
                raise DataError(missing, f"calr gallery show {gallery} {identity} lists them")
            moved = [place for place, path, _, _ in images if path in image]
        else:
            labels = halves(file.features_of(number))
            smaller = int(np.bincount(labels).argmin())
            moved = [place for (place, *_), label in zip(images, labels, strict=True) if label == smaller]
        new = file.new_identity()
        file.move(moved, new)
    tell(
        json,
        gallery,
        {"identity": number, "new": new, "images": len(moved)},
        f"{len(moved):,} images of identity {number} are identity {new} now",
    )


def rename(
    gallery: Gallery,
    identity: Identity,
    name: Annotated[str, typer.Argument(metavar="NAME", help="the new name")],
    json: options.Json = False,
) -> None:
    """Give an identity a name.

    Example:
        calr gallery rename shop.gallery 7 Ada
    """
    from calr_cli.use.gallery_file import GalleryFile

    with GalleryFile(gallery, write=True) as file:
        number = file.find(identity)
        file.rename(number, name)
    tell(json, gallery, {"identity": number, "name": name}, f"identity {number} is {name} now")


def forget(gallery: Gallery, identity: Identity, json: options.Json = False) -> None:
    """Delete an identity for good: its features, small pictures and names are overwritten in the file.

    Example:
        calr gallery forget shop.gallery Ada
    """
    from calr_cli.use.gallery_file import GalleryFile, shrink

    with GalleryFile(gallery, write=True) as file:
        number = file.find(identity)
        images = file.forget(number)
    shrink(gallery)
    tell(
        json,
        gallery,
        {"identity": number, "images": images},
        f"identity {number} and its {images:,} images are forgotten; image files stay where they are",
    )


def tell(json: bool, gallery: Path, result: Mapping[str, Any], words: str) -> None:
    """What was done, in one line or as JSON."""
    if json:
        print_json({"gallery": str(gallery), **result})
    else:
        print_text(words)
