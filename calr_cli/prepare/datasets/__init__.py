"""One file per dataset layout, and the names a dataset can be asked for by."""

from __future__ import annotations

from calr_cli.prepare.datasets.dukemtmcreid import DUKEMTMCREID
from calr_cli.prepare.datasets.layout import DatasetLayout
from calr_cli.prepare.datasets.market1501 import MARKET1501
from calr_cli.prepare.datasets.msmt17 import MSMT17
from calr_cli.prepare.datasets.veri import VERI

LAYOUTS: dict[str, DatasetLayout] = {
    layout.name: layout for layout in (MARKET1501, DUKEMTMCREID, MSMT17, VERI)
}
"""The published datasets by canonical name."""

SYNTHETIC = "synthetic"

DATASET_NAMES: tuple[str, ...] = (*LAYOUTS, SYNTHETIC)
"""Names that are always valid; own prepared datasets add theirs."""
