"""A checkpoint in GPTQ's format, multiplied out: what a quantised model computes with, for any machine to check.

    weight[out, in] = scales[g_idx[in], out] * (q[in, out] - zero[g_idx[in], out])

Eight numbers of 4 bits, or four of 8, lie in one int32: of `qweight` along the inputs, of `qzeros` along the outputs.
The format `gptq` stores a zero less one, `gptq_v2` as it is (GPTQModel and AutoGPTQ write these).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from milestones.learner_model import LearnerFault

PARTS = ("qweight", "qzeros", "scales", "g_idx")


def unpacked(packed: Tensor, bits: int, dim: int) -> Tensor:
    """int32 with several numbers in each -> the numbers, along `dim`: (R, C) -> (R * 32 / bits, C) for 0."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    numbers = (packed.unsqueeze(dim + 1) >> shifts.view(-1, *[1] * (packed.ndim - dim - 1))) & (2**bits - 1)
    return numbers.flatten(dim, dim + 1)


def multiplied_out(tensors: Mapping[str, Tensor], quantisation: Mapping[str, Any]) -> dict[str, Tensor]:
    """All tensors of a checkpoint, with `X.weight` in place of the four parts of each quantised X.

    Raises:
        LearnerFault: another method than GPTQ in 4 or 8 bits, or parts that do not fit together.
    """
    method, bits = quantisation.get("quant_method"), quantisation.get("bits")
    if method != "gptq" or bits not in (4, 8):
        raise LearnerFault(f"the grader reads GPTQ checkpoints of 4 or 8 bits, not {method} of {bits}")
    offset = 0 if quantisation.get("checkpoint_format") == "gptq_v2" else 1
    plain = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in PARTS}
    for name in [name for name in tensors if name.endswith(".qweight")]:
        layer = name.removesuffix(".qweight")
        try:
            qweight, qzeros, scales, g_idx = (tensors[f"{layer}.{part}"] for part in PARTS)
            zeros = unpacked(qzeros, bits, 1) + offset  # (groups, out)
            rows = g_idx.long()
            weight = scales.float()[rows] * (unpacked(qweight, bits, 0) - zeros[rows])  # (in, out)
            plain[f"{layer}.weight"] = weight.T.contiguous()
        except (KeyError, RuntimeError, IndexError):
            raise LearnerFault(f"the quantised layer {layer} is incomplete") from None
    return plain
