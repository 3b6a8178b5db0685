"""Codes of 2, 3, 4 or 8 bits in 32-bit words, as GPTQ checkpoints have them.

Going down a column, the codes form one stream of bits, the lowest bit first; every 32 bits of it are a word. So eight
4-bit codes fill a word, and with 3 bits 32 codes fill three words, two codes lying across a border.

    qweight  (in * bits / 32, out)      int32    codes, packed along the inputs
    qzeros   (groups, out * bits / 32)  int32    zeros minus 1, packed along the outputs
    scales   (groups, out)              float16
    g_idx    (in,)                      int32    which group an input belongs to

The "minus 1" is the format's (version 1): AutoGPTQ wrote it, GPTQModel and vLLM add it again.
"""

import torch
from torch import Tensor

from labkit.errors import LabError
from stage2_rag_finetune_deploy.quantization.grid import Quantised

WORD = 32
TENSORS = ("qweight", "qzeros", "scales", "g_idx")


# exercise: quantization.pack
def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes into words, along the first dimension.

    Args:
        codes: (n, m), integers below 2^bits; n a multiple of 32.

    Returns:
        (n * bits / 32, m), int32.
    """
    lanes = codes.long().view(-1, WORD, codes.shape[1])  # 32 codes fill `bits` words
    words = lanes.new_zeros(len(lanes), bits, codes.shape[1])
    for j in range(WORD):
        word, shift = divmod(j * bits, WORD)
        words[:, word] |= lanes[:, j] << shift & 0xFFFFFFFF
        if shift + bits > WORD:
            words[:, word + 1] |= lanes[:, j] >> (WORD - shift)
    return (words - (words >> (WORD - 1) << WORD)).to(torch.int32).flatten(0, 1)  # the highest bit is the sign


# end exercise


def unpack(words: Tensor, bits: int) -> Tensor:
    """The codes again: (n * bits / 32, m) -> (n, m), uint8.

    Code number j begins at bit j * bits of its 32 codes; `keep` of its bits are in that word, the rest in the next.
    """
    start = torch.arange(0, WORD * bits, bits, device=words.device)
    if WORD % bits == 0:
        codes = (words[:, None] >> start[: WORD // bits, None]) & (2**bits - 1)  # (words, codes in a word, m)
        return codes.to(torch.uint8).flatten(0, 1)
    word, shift = start // WORD, (start % WORD)[:, None]
    keep = (WORD - shift).clamp(max=bits)
    lanes = words.view(-1, bits, words.shape[1])  # the words of 32 codes
    here = (lanes[:, word] >> shift) & ((1 << keep) - 1)
    following = lanes[:, (word + 1).clamp(max=bits - 1)] << keep  # adds nothing where all of the bits were here
    return (here | following & (2**bits - 1)).to(torch.uint8).flatten(0, 1)


def to_tensors(layer: Quantised) -> dict[str, Tensor]:
    """The four tensors of a layer."""
    largest = 2**layer.bits - 1
    zeros = (layer.zeros.long() - 1) & largest  # (out, groups)
    return {
        "qweight": pack(layer.codes.T, layer.bits),
        "qzeros": pack(zeros, layer.bits).T.contiguous(),
        "scales": layer.scales.T.half().contiguous(),
        "g_idx": layer.group_of.to(torch.int32),
    }


def from_tensors(tensors: dict[str, Tensor], bits: int, name: str = "a layer") -> Quantised:
    """A layer from its four tensors.

    Raises:
        LabError: one is missing, or their shapes do not belong together.
    """
    missing = [key for key in TENSORS if key not in tensors]
    if missing:
        raise LabError(f"{name} has no {missing[0]}", "quantise the model again")
    words, zeros, scales, group_of = (tensors[key] for key in TENSORS)
    width, rows, groups = words.shape[0] * WORD // bits, words.shape[1], scales.shape[0]
    shapes = [scales.shape, zeros.shape, group_of.shape]
    if shapes != [(groups, rows), (groups, rows * bits // WORD), (width,)] or int(group_of.max()) >= groups:
        raise LabError(f"the tensors of {name} do not belong together", "quantise the model again")
    codes = unpack(words, bits).T.contiguous()
    zero = (unpack(zeros.T.contiguous(), bits).long() + 1) & (2**bits - 1)  # (out, groups)
    # a copy: a tensor that lies in a mapped file would keep all of the file in memory
    return Quantised(codes, scales.T.float().contiguous(), zero.to(torch.uint8), group_of.clone(), bits)
