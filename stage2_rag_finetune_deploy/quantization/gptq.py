"""GPTQ: round one input's weights at a time, and let the inputs that follow make good the error.

For each input i in turn, for all outputs at once (the rows of W are independent, their Hessian is the same):

    e_i = (w_i - rounded(w_i)) / U_ii              the error, in units that the next line understands
    w_j = w_j - e_i U_ij   for all j > i           the best correction, given that inputs up to i are fixed

- U is the Cholesky factor of the inverse Hessian (hessian.py): computed once, where Optimal Brain Surgeon would
  invert a matrix for every weight
- blocks: corrections inside a block of inputs are applied at once, those beyond it when it is done, in one product
- groups: a group's grid is fitted when its first input is reached, to the corrected weights
- span: the grid reaches the largest of them (`largest`), or as far as rounds them with the least error (`search`)
- order of the inputs: as they come; or the strongest first (`act`); or the strongest group first and inside it the
  strongest input (`group`), which leaves neighbours in a group, so that no kernel has to gather

Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", algorithm 1;
"act-order" and the search for a span (its `mse`) are from its code, the order by groups from GPTQModel (group-aware
reordering).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stage2_rag_finetune_deploy.quantization.grid import SPANS, Quantised, Scheme, search_grid, to_codes
from stage2_rag_finetune_deploy.quantization.hessian import DAMP, inverse_factor

ORDERS = ("none", "act", "group")
SPANS_OF = {"largest": (1.0,), "search": SPANS}
BLOCK = 128  # inputs, where the whole row is one group


def gptq(
    weight: Tensor, hessian: Tensor, scheme: Scheme, order: str = "group", damp: float = DAMP, span: str = "search"
) -> Quantised:  # fmt: skip
    """A weight matrix on a grid, so that the layer's outputs change little.

    Args:
        weight: (out, in). Layers with the same inputs may be stacked.
        hessian: of the inputs. (in, in).
        order: "none", "act" or "group".
        damp: share of the mean of the Hessian's diagonal that is added to it.
        span: "largest" or "search".

    Raises:
        LabError: the group size does not divide the inputs, or the Hessian has no inverse.
    """
    rows, width = weight.shape
    size = scheme.columns(width)
    columns = weight.detach().float().T.clone()  # (in, out): an input is one stretch of memory
    hessian = hessian.clone()
    silent = hessian.diagonal() == 0  # inputs that were never anything but zero: any weight would do
    hessian.diagonal()[silent] = 1
    columns[silent] = 0
    turn = input_order(hessian.diagonal(), size, order)  # (in,)
    factor = inverse_factor(hessian[turn][:, turn], damp)
    codes, scales, zeros = quantise_columns(columns[turn], factor, scheme, size, SPANS_OF[span])
    codes[turn] = codes.clone()
    place = torch.arange(width, device=weight.device) // size  # in the order of the turn
    group_of = torch.empty_like(place)
    group_of[turn] = place
    if order == "group":  # each group is one of neighbours: number them from left to right again
        whole = group_of.view(-1, size)[:, 0]
        scales, zeros, group_of = scales[whole], zeros[whole], place
    return Quantised(codes.T.contiguous(), scales.T.contiguous(), zeros.T.contiguous(), group_of.int(), scheme.bits)


def input_order(diagonal: Tensor, size: int, order: str) -> Tensor:
    """In which order the inputs are rounded. (in,), int64.

    Args:
        diagonal: of the Hessian. (in,).
        size: inputs in a group.
        order: one of ORDERS.
    """
    if order == "none":
        return torch.arange(len(diagonal), device=diagonal.device)
    if order == "act":
        return diagonal.argsort(descending=True, stable=True)
    groups = diagonal.view(-1, size)
    inside = groups.argsort(dim=1, descending=True, stable=True)  # (groups, size)
    turn = groups.sum(1).argsort(descending=True, stable=True)
    return (inside + size * torch.arange(len(groups), device=diagonal.device)[:, None])[turn].flatten()


# exercise: quantization.quantise_columns
def quantise_columns(
    columns: Tensor, factor: Tensor, scheme: Scheme, size: int, spans: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """GPTQ's loop: round each input's weights, correct those of the inputs after it.

    Args:
        columns: W^T, the inputs in the order in which they are rounded; used up. (in, out), float32.
        factor: U, in that order. (in, in).
        size: inputs in a group; a group's grid is `search_grid` of its weights when its first input is reached.
        spans: for `search_grid`.

    Returns:
        codes (in, out) and zeros (groups, out), uint8; scales (groups, out), float32.
    """
    width, rows = columns.shape
    block = size if size < width else BLOCK
    codes = torch.empty(width, rows, dtype=torch.uint8, device=columns.device)
    scales, zeros = columns.new_empty(width // size, rows), columns.new_empty(width // size, rows)
    for start in range(0, width, block):
        end = min(start + block, width)
        errors = columns.new_empty(end - start, rows)
        for i in range(start, end):
            group = i // size
            if i % size == 0:
                scale, zero = search_grid(columns[i : i + size].T, scheme, spans)
                scales[group], zeros[group] = scale[:, 0], zero[:, 0]
            code = to_codes(columns[i], scales[group], zeros[group], scheme.levels)
            error = (columns[i] - scales[group] * (code - zeros[group])) / factor[i, i]
            columns[i + 1 : end].addr_(factor[i, i + 1 : end], error, alpha=-1)
            codes[i], errors[i - start] = code, error
        columns[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
    return codes, scales, zeros.to(torch.uint8)


# end exercise
