from __future__ import annotations

import pytest

from calr_cli.models.conventions import (
    CONVENTIONS,
    FAST_REID,
    SPCL,
    TORCHREID,
    Convention,
    recognise,
)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda known: f"{known.programs}-{known.sign[-1]}")
def test_names_go_there_and_back(convention: Convention) -> None:
    for theirs in convention.names:
        key = f"{theirs}weight" if theirs else "layer1.0.conv1.weight"
        name = convention.name_of(key)
        assert name is not None
        assert name.startswith(("backbone.", "pooling.", "neck."))
        assert convention.key_of(name) == key


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda known: f"{known.programs}-{known.sign[-1]}")
def test_every_convention_can_be_reached(convention: Convention) -> None:
    """One whose sign is that of another before it would never be taken."""
    assert recognise(convention.sign) is convention


def test_what_lies_beside_the_network_is_told_from_what_may_be_part_of_it() -> None:
    assert SPCL.name_of("classifier.weight") is None
    assert SPCL.name_of("feat_bn_2.weight") == "unknown.feat_bn_2.weight"
    assert SPCL.key_of("unknown.feat_bn_2.weight") == "feat_bn_2.weight"
    assert FAST_REID.name_of("heads.weight") is None
    assert FAST_REID.name_of("heads.attention.weight") == "unknown.heads.attention.weight"
    assert TORCHREID.name_of("classifier.weight") is None
    assert TORCHREID.name_of("attention.weight") == "backbone.attention.weight"  # refused: no such layer
