"""Each test names the bug that it catches. The oracle is torch's own implementation."""

import pytest
import torch
from torch.nn import functional as F

from stage1_foundations.gpt.feed_forward import FeedForward

EXPECTED = {
    "gelu": lambda h: F.gelu(h, approximate="tanh"),
    "relu2": lambda h: torch.where(h > 0, h * h, 0.0),
    "swiglu": lambda h: h[..., :24] * torch.sigmoid(h[..., :24]) * h[..., 24:],
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_feed_forward_is_the_formula(kind):
    """Catches: another GELU than GPT-2's tanh form, the wrong half as the gate, ReLU not squared."""
    layer = FeedForward(8, 24, kind, bias=True)
    x = 2 * torch.randn(2, 3, 8)
    hidden = F.linear(x, layer.up.weight, layer.up.bias)
    expected = F.linear(EXPECTED[kind](hidden), layer.down.weight, layer.down.bias)
    assert torch.allclose(layer(x), expected, atol=1e-6)


def test_gelu_is_not_the_exact_form():
    """Catches: a swap of the two GELUs, which costs GPT-2's weights 1e-3 in the logits."""
    h = torch.linspace(-3, 3, 100)
    activated = FeedForward(4, 4, "gelu", bias=False).activate(h)
    assert (activated - F.gelu(h)).abs().max() > 1e-4
    cube = 0.7978845608 * (h + 0.044715 * h**3)  # sqrt(2 / pi)
    assert torch.allclose(activated, 0.5 * h * (1 + torch.tanh(cube)), atol=1e-6)


@pytest.mark.parametrize(("kind", "matrices"), [("gelu", 2), ("relu2", 2), ("swiglu", 3)])
def test_number_of_weights(kind, matrices):
    """Catches: a gate that is missing, or built where there is none; a bias that stays."""
    layer = FeedForward(8, 24, kind, bias=False)
    assert sum(p.numel() for p in layer.parameters()) == matrices * 8 * 24


@pytest.mark.parametrize("kind", EXPECTED)
def test_tokens_do_not_mix(kind):
    """Catches: a split along time instead of features."""
    layer = FeedForward(8, 24, kind, bias=True)
    x = torch.randn(2, 6, 8)
    assert torch.allclose(layer(x)[:, 3:4], layer(x[:, 3:4]), atol=1e-6)
