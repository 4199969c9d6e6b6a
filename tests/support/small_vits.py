"""Vision transformers with few channels: the real ones have 22 million weights and more."""

from __future__ import annotations

from calr_cli.models.vit import Size

SMALL_VITS = {
    "vit_small": Size(24, 3, ics=False),
    "vit_base": Size(36, 3, ics=False),
    "vit_small_ics": Size(24, 3, ics=True),
}
