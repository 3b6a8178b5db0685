"""The feed-forward part of a block: each token, alone, is widened, bent, and narrowed again.

    gelu    down(gelu(up(x)))              GPT-2 (Hendrycks and Gimpel 2016)
    relu2   down(relu(up(x))^2)            Primer (So et al. 2021): sparse, cheap, no worse
    swiglu  down(silu(gate(x)) * up(x))    Llama (Shazeer 2020): a third matrix that gates the others

Attention moves information between tokens; this is where two thirds of the weights sit and where facts are kept.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from stage1_foundations.gpt.linear import Linear

KINDS = ("gelu", "relu2", "swiglu")


class FeedForward(nn.Module):
    """Two matrices, or three with a gate.

    The gate and the up projection share one matrix: one large product is faster than two small ones.
    """

    def __init__(self, width: int, hidden: int, kind: str, bias: bool) -> None:
        super().__init__()
        self.kind = kind
        self.up = Linear(width, 2 * hidden if kind == "swiglu" else hidden, bias=bias)
        self.down = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activate(self.up(x)))  # (B, T, C) -> (B, T, hidden) -> (B, T, C)

    # exercise: gpt.activate
    def activate(self, h: Tensor) -> Tensor:
        """The bend between the two products: (..., up.out_features) -> (..., hidden)."""
        if self.kind == "swiglu":
            gate, up = h.chunk(2, dim=-1)
            return F.silu(gate) * up
        if self.kind == "relu2":
            return F.relu(h).square()
        return F.gelu(h, approximate="tanh")  # GPT-2's own form of GELU
    # end exercise
