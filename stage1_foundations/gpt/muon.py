"""Muon: momentum, then the nearest orthogonal matrix (Jordan et al. 2024, "Muon: an optimizer for hidden layers").

A gradient matrix is dominated by few directions. Muon replaces it by U V^T of its singular value decomposition, so
that every direction is learnt at the same speed. The decomposition is never computed: five steps of a polynomial
(Newton-Schulz) push all singular values towards 1, with nothing but matrix products.

On a CPU with small matrices, the number of calls costs more than the products: all matrices of one shape are stacked
and orthogonalised in one batched call (NOTES.md has the figures).
Only for the hidden matrices. Embeddings, the head, gains and biases stay with AdamW: see optimizer.py.
"""

from collections import defaultdict

import torch
from torch import Tensor

# Coefficients of the quintic a x + b x^3 + c x^5: steep at 0, and it keeps [0.7, 1.2] where it is.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


# exercise: gpt.orthogonalise
def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of a stack of matrices to about 1.

    Args:
        matrices: (N, rows, columns), any floating dtype; computed in that dtype.

    Returns:
        (N, rows, columns) with singular values in about [0.7, 1.2].
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if wide else matrices  # rows <= columns makes x x^T the smaller product
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # singular values at most 1
    for _ in range(steps):
        gram = x @ x.mT  # (N, rows, rows)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if wide else x
# end exercise


class Muon(torch.optim.Optimizer):
    """Stochastic gradient descent with Nesterov momentum, each update orthogonalised.

    Args:
        params: matrices. A parameter may carry `muon_rows`, a tuple of row counts: a fused matrix (q, k, v) is
            several matrices, and each is orthogonalised by itself.
        lr: step size in units of the matrix's own scale, sqrt(max(1, rows / columns)).
        momentum: Nesterov momentum.
        weight_decay: decoupled, applied only where the update and the weight agree in sign ("cautious").
        dtype: of the Newton-Schulz products; bfloat16 is enough where it is fast.
    """

    def __init__(
        self, params, lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0,
        steps: int = 5, dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.dtype = dtype
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            pieces = defaultdict(list)  # shape -> [(update in and out, scale)]
            weights, updates = [], []
            for param in group["params"]:
                if param.grad is None:
                    continue
                momentum = self.state[param].setdefault("momentum", torch.zeros_like(param))
                momentum.lerp_(param.grad, 1 - group["momentum"])
                update = param.grad.lerp(momentum, group["momentum"])
                weights.append(param)
                updates.append(update)
                for piece in update.split(getattr(param, "muon_rows", update.shape[0])):
                    rows, columns = piece.shape
                    pieces[min(rows, columns), max(rows, columns)].append(piece)
            for stack in pieces.values():
                orthogonalise_in_place(stack, group["steps"], self.dtype)
            apply_updates(weights, updates, group["lr"], group["weight_decay"])


def orthogonalise_in_place(pieces: list[Tensor], steps: int, dtype: torch.dtype) -> None:
    """Orthogonalise matrices of one shape (up to transposition) in one batched call, and scale each to its shape."""
    flat = [piece if piece.shape[0] <= piece.shape[1] else piece.mT for piece in pieces]
    result = orthogonalise(torch.stack(flat).to(dtype), steps).float()
    for piece, target, update in zip(pieces, flat, result, strict=True):
        rows, columns = piece.shape
        target.copy_(update * max(1.0, rows / columns) ** 0.5)


def apply_updates(weights: list[Tensor], updates: list[Tensor], lr: float, weight_decay: float) -> None:
    """weight -= lr * (update + weight_decay * weight where both have one sign)."""
    if weight_decay:
        for weight, update in zip(weights, updates, strict=True):
            weight.addcmul_(weight, (weight * update > 0).to(weight.dtype), value=-lr * weight_decay)
    torch._foreach_add_(weights, updates, alpha=-lr)
