"""Which parameter is trained by which optimiser.

    adamw   matrices with weight decay, vectors without (nanoGPT's two groups)
    muon    hidden matrices by Muon; embeddings, head, gains and biases by AdamW

A vector is not decayed: a norm's gain or a bias has no reason to be near zero.
"""

import torch
from torch import nn

from stage1_foundations.gpt.model import GPT
from stage1_foundations.gpt.muon import Muon

KINDS = ("muon", "adamw")


# exercise: gpt.adamw_groups
def adamw_groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict]:
    """Two groups for AdamW: matrices and tables, decayed; vectors and scalars, not decayed."""
    decayed = [p for p in parameters if p.ndim >= 2]
    kept = [p for p in parameters if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
# end exercise


def hidden_matrices(model: GPT) -> list[nn.Parameter]:
    """The matrices inside the blocks, with the row counts at which Muon cuts the fused q, k, v apart."""
    for block in model.blocks:
        block.attention.qkv.weight.muon_rows = list(block.attention.sizes)
    return [p for p in model.blocks.parameters() if p.ndim == 2]


def build_optimizers(
    model: GPT,
    kind: str,
    *,
    lr: float,
    matrix_lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    dtype: torch.dtype,
) -> list[torch.optim.Optimizer]:
    """The optimisers of a run; each group remembers its peak rate in `peak_lr`.

    Args:
        lr: AdamW's rate.
        matrix_lr: Muon's rate.
        weight_decay: decoupled decay of both.
        dtype: of Muon's products.
    """
    matrices = hidden_matrices(model) if kind == "muon" else []
    taken = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in taken]
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(Muon(matrices, lr=matrix_lr, weight_decay=weight_decay, dtype=dtype))
    adamw_decay = weight_decay if kind == "adamw" else 0.0  # tables of embeddings: rows not seen must not shrink
    optimizers.append(torch.optim.AdamW(adamw_groups(others, adamw_decay), lr=lr, betas=betas, fused=True))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def set_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Give every group its peak rate times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
