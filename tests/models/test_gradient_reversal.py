from __future__ import annotations

import pytest
import torch

from calr_cli.models.gradient_reversal import reverse_gradient


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_identity_forwards_and_exactly_minus_alpha_backwards(alpha: float) -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 4, dtype=torch.float64)
    (straight,) = torch.autograd.grad((x.tanh() * weights).sum(), x)
    (reversed_,) = torch.autograd.grad((reverse_gradient(x, alpha).tanh() * weights).sum(), x)
    assert torch.equal(reverse_gradient(x, alpha), x)
    assert torch.equal(reversed_, -alpha * straight)
