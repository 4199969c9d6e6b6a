"""The stages work with any network: here with one that trains in a moment."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def narrow_networks(narrow: None) -> None:
    """All tests of this folder."""
