from __future__ import annotations

import torch

from calr_cli.models.non_local import NonLocalBlock, non_local_at_their_blocks


def test_every_position_is_compared_with_every_other() -> None:
    torch.manual_seed(0)
    block = NonLocalBlock(6, inner_channels=3).eval()
    x = torch.randn(2, 6, 4, 5)
    theta, phi, g = (layer(x).flatten(2) for layer in (block.theta, block.phi, block.g))  # (B, 3, HW)
    mixed = torch.zeros(2, 3, 20)
    for image in range(2):
        for here in range(20):
            for there in range(20):
                similarity = theta[image, :, here] @ phi[image, :, there]
                mixed[image, :, here] += similarity * g[image, :, there] / 20
    torch.testing.assert_close(block(x), x + block.W(mixed.view(2, 3, 4, 5)))


def test_they_follow_the_last_blocks_of_their_stage() -> None:
    state = {f"backbone.layer3.{block}.conv1.weight": torch.ones(1) for block in range(6)}
    listed = {f"backbone.NL_3.{place}.g.weight": torch.full((1,), place) for place in range(3)}
    named = non_local_at_their_blocks(state | listed)
    assert named.keys() - state.keys() == {f"backbone.layer3.{n}.non_local.g.weight" for n in (3, 4, 5)}
    assert named["backbone.layer3.4.non_local.g.weight"] == 1
