"""Prepares everything that the page shows of a run for the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup

from calr_cli.config.loading import flat_settings
from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels
from calr_cli.evaluation.calibration import EVEN_ODDS
from calr_cli.report.clusters import choose_clusters
from calr_cli.report.comparison import Figure, figures_of
from calr_cli.report.curves import Panel, panels_of
from calr_cli.report.figures import histogram
from calr_cli.report.findings import Findings
from calr_cli.report.maps import map_by_camera, map_by_cluster
from calr_cli.report.missing import Missing, or_missing
from calr_cli.report.record import RunRecord
from calr_cli.report.retrieval import Retrieval
from calr_cli.report.tiles import Mosaic, RankedList, changed_queries, mosaic, ranked_list, telling_queries
from calr_cli.types import ImageSet

_FEW = 1e-3


@dataclass(frozen=True)
class Detail:
    """The amounts of each run that fit into a page.

    Attributes:
        queries: Number of best, of median and of worst queries.
        clusters: Number of mosaics.
        points: Number of points on the map.
    """

    queries: int
    clusters: int
    points: int


def detail_for(runs: int) -> Detail:
    """Smaller amounts for more runs, so that a page stays below 10 MB."""
    if runs == 1:
        return Detail(3, 10, 2000)
    return Detail(2, 6, 1500) if runs == 2 else Detail(1, 4, 1000) if runs <= 4 else Detail(0, 0, 400)


@dataclass(frozen=True)
class RunView:
    """A run as the page shows it; a `Missing` part gives its reason.

    Attributes:
        key: Key that is unique on the page.
        run: Record of the run folder.
        findings: Results from the model and images.
        figures: Figures that sum up the run.
        settings: Key, value, and whether the value differs from the default.
        panels: Curves.
        ranked: Ranked lists.
        clusters: Mosaics of clusters.
        maps: Maps by camera and by cluster.
        camera_map: mAP in percent by camera of the query and of the gallery; None if there is none.
        pairs: Histogram of similarities.
        pairs_note: Meaning of the histogram, in words.
    """

    key: str
    run: RunRecord
    findings: Findings
    figures: list[Figure]
    settings: list[tuple[str, Any, bool]]
    panels: list[Panel]
    ranked: list[RankedList] | Missing
    clusters: list[Mosaic] | Missing
    maps: list[tuple[str, Markup | Missing]] | Missing
    camera_map: list[list[float | None]] | Missing
    pairs: Markup | Missing
    pairs_note: str


def view_of(key: str, run: RunRecord, findings: Findings, detail: Detail) -> RunView:
    """The view of a run: pictures and words for all findings."""
    defaults = flat_settings(Settings())
    retrieval = findings.retrieval
    pairs, note = (retrieval, "") if isinstance(retrieval, Missing) else _pairs(key, retrieval, findings)
    return RunView(
        key,
        run,
        findings,
        figures_of(run, findings),
        [(name, value, value != defaults[name]) for name, value in flat_settings(run.settings).items()],
        panels_of(run, f"{key}-curve"),
        or_missing(lambda: _ranked(findings, detail.queries)),
        or_missing(lambda: _mosaics(run, findings, detail.clusters)),
        _maps(key, findings),
        retrieval if isinstance(retrieval, Missing) else _percent(retrieval),
        pairs,
        note,
    )


def _left_out() -> Missing:
    return Missing("Left out with so many runs in one report: make a report of this run alone.")


def _ranked(findings: Findings, each: int) -> list[RankedList] | Missing:
    retrieval, dataset = findings.retrieval, findings.dataset
    if isinstance(retrieval, Missing):
        return retrieval
    assert not isinstance(dataset, Missing)
    if not each:
        return _left_out()
    chosen = telling_queries(retrieval, each)
    return [ranked_list(retrieval, dataset, query, title) for title, query in chosen]


def _mosaics(run: RunRecord, findings: Findings, count: int) -> list[Mosaic] | Missing:
    dataset, labels = findings.dataset, findings.labels
    if isinstance(dataset, Missing):
        return dataset
    if not count:
        return _left_out()
    if run.stage == "intra":
        return _local_mosaics(run, dataset.train, count)
    if isinstance(labels, Missing):
        return labels
    made = labels.epoch
    chosen = choose_clusters(made.global_labels, made.refined_labels, made.pivots, dataset.train, count)
    return [mosaic(cluster, dataset.train) for cluster in chosen]


def _local_mosaics(run: RunRecord, images: ImageSet, count: int) -> list[Mosaic] | Missing:
    """Clusters of stage 1, taken from its cameras in turn; they have no pivots yet."""
    if not run.folder.local_labels.is_file():
        return Missing("There are no local labels yet: not all cameras are done.")
    labels = read_local_labels(run.folder.local_labels, images)
    chosen = choose_clusters(labels, labels, np.full(labels.max() + 1, -1), images, count)
    return [mosaic(cluster, images) for cluster in chosen]


def _maps(key: str, findings: Findings) -> list[tuple[str, Markup | Missing]] | Missing:
    found, dataset, labels = findings.map, findings.dataset, findings.labels
    if isinstance(found, Missing):
        return found
    assert not isinstance(dataset, Missing)
    by_cluster: Markup | Missing = (
        labels
        if isinstance(labels, Missing)
        else map_by_cluster(f"{key}-map-cluster", found, labels.epoch.refined_labels)
    )
    return [
        ("By camera", map_by_camera(f"{key}-map-camera", found, dataset.train.camids)),
        ("By refined cluster", by_cluster),
    ]


def _percent(retrieval: Retrieval) -> list[list[float | None]]:
    rows = 100 * retrieval.camera_map
    return [[None if np.isnan(value) else float(value) for value in row] for row in rows]


def _pairs(key: str, retrieval: Retrieval, findings: Findings) -> tuple[Markup, str]:
    similarity, share = retrieval.same_accepted(_FEW)
    note = (
        f"Of the pairs of different identities, {100 * _FEW:g}% have a similarity of {similarity:.2f} "
        f"or more; of the pairs of one identity in two cameras, {100 * share:.1f}% have."
    )
    marks = []
    if calibration := findings.calibration:
        even = calibration.similarity_at(EVEN_ODDS)
        marks.append(("as likely the same as not", even))
        note += f" At {even:.2f} a pair is as likely the same as not (calibrated {calibration.origin})."
    groups = [("same identity, two cameras", retrieval.same), ("different identities", retrieval.different)]
    alt = f"Histogram of similarities of query and gallery images. {note}"
    return histogram(f"{key}-pairs", alt, retrieval.edges, groups, marks), note


@dataclass(frozen=True)
class Change:
    """A query that two runs answer differently."""

    title: str
    first: RankedList
    other: RankedList


def changes(views: Sequence[RunView], each: int) -> list[tuple[RunView, list[Change] | Missing]]:
    """For each run after the first, the queries whose average precision changed most."""
    return [(view, or_missing(partial(_changes, views[0], view, each))) for view in views[1:]]


def _changes(first: RunView, other: RunView, each: int) -> list[Change] | Missing:
    found = [view.findings.retrieval for view in (first, other)]
    sets = [view.findings.dataset for view in (first, other)]
    if missing := next((part for part in found if isinstance(part, Missing)), None):
        return missing
    before, after = (part for part in found if isinstance(part, Retrieval))
    one, two = (part for part in sets if not isinstance(part, Missing))
    if (one.query.digests, one.gallery.digests) != (two.query.digests, two.gallery.digests):
        return Missing("The runs were tested on different images.")
    if not each:
        return _left_out()
    return [
        Change(
            title,
            ranked_list(before, one, query, first.run.name),
            ranked_list(after, two, query, other.run.name),
        )
        for title, query in changed_queries(before, after, each)
    ]
