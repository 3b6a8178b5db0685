"""Each test names the bug that it catches."""

import pytest
import torch
from torch import nn
from torch.nn.functional import linear, silu

from labkit.packed_product import can_pack, pack, packed_linear_layers, product, product_with

WEIGHT = torch.randn(96, 64)
needs_packing = pytest.mark.skipif(not can_pack(WEIGHT), reason="no arranged product in float32 on this processor")


class Doubled(nn.Linear):
    """A layer that computes something else: bitsandbytes' are of this kind."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@needs_packing
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_the_product_is_the_product(rows):
    """Catches: an arrangement that is right for the number of rows it was made for alone; a lost bias."""
    x, bias, other, packed = torch.randn(2, rows, 64), torch.randn(96), torch.randn(2, rows, 96), pack(WEIGHT)
    y = linear(x, WEIGHT, bias)
    assert torch.allclose(product(x, packed, bias), y, atol=1e-4)
    assert torch.allclose(product(x, packed, bias, "swish"), silu(y), atol=1e-4)
    assert torch.allclose(product_with(x, other, packed, bias, "add"), y + other, atol=1e-4)
    assert torch.allclose(product_with(x, other, packed, bias, "mul"), y * other, atol=1e-4)


@needs_packing
def test_a_model_is_the_same_afterwards():
    """Catches: layers that keep weights of before, so that training them changes nothing; one that was not plain."""
    model, x = nn.Sequential(nn.Linear(64, 96), nn.Tanh(), Doubled(96, 8)), torch.randn(3, 64)
    before = model(x).detach()
    with torch.no_grad(), packed_linear_layers(model):
        assert model[0].forward.func is product and "forward" not in vars(model[2])
        assert torch.allclose(model(x), before, atol=1e-5)
    with torch.no_grad():
        model[0].weight.zero_()
    assert not torch.allclose(model(x), before, atol=1e-2)
    model(x).sum().backward()
    assert model[0].weight.grad is not None


@needs_packing
def test_a_block_inside_another_one():
    """Catches: the inner block's end that takes the outer one's copies away."""
    model = nn.Sequential(nn.Linear(64, 96))
    with packed_linear_layers(model):
        with packed_linear_layers(model):
            pass
        assert model[0].forward.func is product
    assert "forward" not in vars(model[0])


@needs_packing
def test_an_error_inside_leaves_no_copies():
    """Catches: a decoding that stopped in the middle and left the layers frozen."""
    model = nn.Sequential(nn.Linear(64, 96))
    with pytest.raises(KeyboardInterrupt), packed_linear_layers(model):
        raise KeyboardInterrupt
    assert "forward" not in vars(model[0])


def test_what_cannot_be_packed_is_left_alone(monkeypatch):
    """Catches: a processor without AVX, or a dtype it has to emulate, sent to a product that is slower or missing."""
    assert not can_pack(WEIGHT.half()) and not can_pack(WEIGHT.to("meta"))
    monkeypatch.setattr("labkit.packed_product.cpu_has_bf16", lambda: False)
    assert not can_pack(WEIGHT.bfloat16())
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not can_pack(WEIGHT)
    model = nn.Sequential(nn.Linear(64, 96))
    with packed_linear_layers(model):
        assert "forward" not in vars(model[0])
