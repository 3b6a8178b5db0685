"""Linear layers that stay packed in memory, and the kernels that multiply by them.

With one token at a time a matrix is read once for one row of products: the time is that of reading it, and a matrix
of a quarter of the size takes a quarter of the time, if the kernel unpacks as fast as memory delivers. With many tokens
at once the time is that of multiplying, and unpacking is extra work: then the matrix is unpacked for the fast
product. So each layer has two ways.

    int4   aten::_weight_int4pack_mm_for_cpu   4 bits, neighbours in groups of 32 to 256, on a CPU
    int8   aten::_weight_int8pack_mm           8 bits, one scale a row, on a CPU
    unpack                                     anything, anywhere: unpack for every product. No kernel reads 3 bits here

Both kernels are fast on bfloat16 alone, even on processors that have to emulate it: there the rest of the model
computes in float32, and a layer's inputs and outputs are converted.
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from labkit.device import cpu_has_avx
from stage2_rag_finetune_deploy.quantization.grid import Quantised
from stage2_rag_finetune_deploy.quantization.packing import from_tensors, to_tensors

INT4_GROUPS = (32, 64, 128, 256)
INT4, INT8, UNPACK = "aten int4pack_mm", "aten int8pack_mm", "unpack + linear"
READS = torch.bfloat16  # what the kernels multiply
MANY = {INT4: 256, INT8: 48}  # tokens at once from which unpacking first is faster (NOTES.md)


class PackedLinear(nn.Module):
    """A linear layer kept in few bits.

    Args:
        layer: the weights.
        bias: (out,) or None.
        dtype: of inputs and outputs.
    """

    def __init__(self, layer: Quantised, bias: Tensor | None = None, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.codes.shape
        self.bits, self.dtype = layer.bits, dtype
        self.bias = None if bias is None else nn.Parameter(bias.to(dtype), requires_grad=False)
        self.kernel = choose_kernel(layer, dtype)
        if self.kernel == INT4:
            self.register_buffer("packed", torch.ops.aten._convert_weight_to_int4pack_for_cpu(layer.codes.int(), 1))
            offset = layer.scales * (8 - layer.zeros.float())  # the kernel computes scale * (code - 8) + offset
            both = torch.stack([layer.scales.T, offset.T], -1)  # (groups, out, 2)
            self.register_buffer("scale_and_offset", both.to(READS).contiguous())
        elif self.kernel == INT8:
            self.register_buffer("packed", (layer.codes.int() - 128).to(torch.int8))
            self.register_buffer("scale", layer.scales[:, 0].to(READS))
        else:
            for name, tensor in to_tensors(layer).items():
                self.register_buffer(name, tensor)

    @property
    def group(self) -> int:
        """Inputs that share a scale, in the int4 kernel's form."""
        return self.in_features // len(self.scale_and_offset)

    def weights(self) -> Tensor:
        """The matrix. (out, in), of the layer's dtype."""
        if self.kernel == INT8:
            return self.packed.to(self.dtype) * self.scale[:, None].to(self.dtype)
        if self.kernel == INT4:
            codes = unpack_int4(self.packed).unflatten(1, (-1, self.group))
            scale, offset = self.scale_and_offset.to(self.dtype).transpose(0, 1).unsqueeze(-2).unbind(-1)
            return torch.addcmul(offset, scale, codes.to(self.dtype) - 8).flatten(1)  # both (out, groups, 1)
        tensors = {name: getattr(self, name) for name in ("qweight", "qzeros", "scales", "g_idx")}
        return from_tensors(tensors, self.bits).weights().to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self.kernel == UNPACK or x.numel() >= MANY[self.kernel] * self.in_features:
            return linear(x, self.weights(), self.bias)
        rows = x.reshape(-1, self.in_features).to(READS)
        if self.kernel == INT4:
            rows = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, self.group, self.scale_and_offset)
        else:
            rows = torch._weight_int8pack_mm(rows, self.packed, self.scale)
        product = rows.view(*x.shape[:-1], self.out_features).to(x.dtype)
        return product if self.bias is None else product + self.bias


def choose_kernel(layer: Quantised, dtype: torch.dtype) -> str:
    """The fastest kernel that can read this layer in this place: INT4, INT8 or UNPACK."""
    rows, width = layer.codes.shape
    if layer.codes.device.type != "cpu" or not layer.ascending:
        return UNPACK
    if dtype != READS and not cpu_has_avx():  # elsewhere: not measured
        return UNPACK
    group = width // layer.scales.shape[1]
    if layer.bits == 4 and group in INT4_GROUPS and rows % (int4_height() or rows + 1) == 0:
        return INT4
    if layer.bits == 8 and group == width and bool((layer.zeros == 128).all()):
        return INT8
    return UNPACK


@cache
def int4_height() -> int | None:
    """Rows that the int4 kernel's layout puts together on this processor; None where it is another layout.

    A block of rows becomes (in, height / 2) bytes: the lower half of the rows in the low four bits, the upper half in
    the high ones. Found out with a matrix whose codes are known.
    """
    codes = torch.arange(64 * 32, dtype=torch.int32).view(64, 32) * 7 // 5 % 16
    try:
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    except (RuntimeError, AttributeError):
        return None
    return next((height for height in (64, 32, 16) if torch.equal(unpack_int4(packed, height).int(), codes)), None)


def unpack_int4(packed: Tensor, height: int | None = None) -> Tensor:
    """The codes of the int4 kernel's layout. (out, in / 2), uint8 -> (out, in), uint8."""
    rows, half = packed.shape
    height = height or int4_height()
    blocks = packed.view(rows // height, 2 * half, height // 2)
    return torch.cat([blocks & 15, blocks >> 4], dim=2).transpose(1, 2).reshape(rows, 2 * half)
