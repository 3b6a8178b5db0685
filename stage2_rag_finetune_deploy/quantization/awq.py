"""AWQ: make the weights of strong inputs larger before rounding, and their inputs smaller by the same factor.

A group's rounding error is about the same for all its weights; multiplying the weights of a strong input by s and
dividing the input by s leaves the product alone and divides that input's share of the error by s. The price: the
largest weight of the group grows, and with it the distance of the levels. So s = (mean |x|)^ratio, with the ratio of 0
to 1 that gives the smallest error of the outputs; no gradients, no corrections.

- the division costs nothing at run time: it is folded into what computes the inputs (a norm's gain, or the rows of the
  linear layer before)
- the span of each group is clipped where that helps (not for queries and keys, as in the authors' code)
- the error is read off the Hessian (hessian.py), where the authors run the layer again for every ratio

Lin et al. 2024, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", section 3.2.
"""

import torch
from torch import Tensor, nn

from stage2_rag_finetune_deploy.quantization.grid import Scheme, rounded
from stage2_rag_finetune_deploy.quantization.hessian import InputStatistics, squared_outputs

RATIOS = 20
ROWS = 256  # weights of so many outputs are enough to compare ratios by
CLIPS = tuple(1 - 0.05 * step for step in range(11))  # 1.0 ... 0.5


# exercise: quantization.search_scales
def search_scales(weight: Tensor, statistics: InputStatistics, scheme: Scheme, ratios: int = RATIOS) -> Tensor:
    """The factor of each input's weights: of (mean |x|)^ratio, ratio = 0, 1/ratios, ..., the one with the least error.

    The factors are divided by the square root of their largest times their smallest, so that they lie around 1. The
    error of factors s is that of the weights round(W s) / s on the inputs.

    Args:
        weight: of all layers with these inputs, stacked. (out, in).
        ratios: how many are tried.

    Returns:
        (in,), float32; all 1 where nothing was better than plain rounding.
    """
    weight, hessian = weight[:: max(1, len(weight) // ROWS)].float(), statistics.hessian
    best, least = torch.ones(weight.shape[1], device=weight.device), None
    for step in range(ratios):
        scales = statistics.mean_absolute.clamp(min=1e-4) ** (step / ratios)
        scales = scales / (scales.max() * scales.min()).sqrt()
        error = squared_outputs(rounded(weight * scales, scheme) / scales - weight, hessian)
        if least is None or error < least:
            best, least = scales, error
    return best


# end exercise


def search_clips(weight: Tensor, hessian: Tensor, scheme: Scheme) -> Tensor:
    """How far to shrink each group's span, of CLIPS: the one with the least error of this group alone.

    Args:
        weight: (out, in).
        hessian: of its inputs; only the blocks of each group on the diagonal count. (in, in).

    Returns:
        (out, groups, 1).
    """
    rows, width = weight.shape
    size = scheme.columns(width)
    groups = weight.float().view(rows, -1, size)
    parts = torch.stack([hessian[i : i + size, i : i + size] for i in range(0, width, size)])  # (groups, G, G)
    best = torch.ones(rows, width // size, 1, device=weight.device)
    least = torch.full_like(best, torch.inf)
    for clip in CLIPS:
        difference = rounded(weight, scheme, clip).view_as(groups) - groups
        error = (torch.einsum("rgi,gij->rgj", difference, parts) * difference).sum(-1, keepdim=True)
        better = error < least
        best, least = torch.where(better, clip, best), torch.where(better, error, least)
    return best


def fold(scales: Tensor, before: nn.Module, layers: list[nn.Linear]) -> Tensor:
    """Divide what computes the inputs by the factors and multiply the layers' weights; the block computes the same.

    Args:
        scales: (in,).
        before: a norm with a gain, or a linear layer whose outputs are these inputs.
        layers: what reads the inputs.

    Returns:
        The factors that were used: those of `scales` after the gain was rounded to its dtype. (in,).
    """
    if isinstance(before, nn.Linear):
        before.weight.div_(scales[:, None])
        if before.bias is not None:
            before.bias.div_(scales)
    else:
        gain = before.weight.float().clone()
        before.weight.copy_(gain / scales)
        kept = before.weight.float()
        scales = torch.where(kept == 0, scales, gain / kept)
        if getattr(before, "bias", None) is not None:
            before.bias.div_(scales)
    for layer in layers:
        layer.weight.mul_(scales)
    return scales
