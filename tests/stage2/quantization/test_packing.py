"""Each test names the bug that it catches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabError
from stage2_rag_finetune_deploy.quantization.grid import Scheme, round_to_nearest
from stage2_rag_finetune_deploy.quantization.packing import from_tensors, pack, to_tensors, unpack


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([2, 3, 4, 8]), st.integers(1, 3), st.integers(1, 4), st.integers(0, 1000))
def test_words_are_one_stream_of_bits(bits, blocks, columns, seed):
    """Catches: a wrong order of codes, bits lost at the border of two words (3 bits), a wrong sign.

    The oracle writes a column's codes into one large Python integer.
    """
    codes = torch.randint(0, 2**bits, (32 * blocks, columns), generator=torch.Generator().manual_seed(seed))
    words = pack(codes, bits)
    assert words.dtype == torch.int32 and words.shape == (blocks * bits, columns)
    for column in range(columns):
        stream = sum(int(code) << (bits * place) for place, code in enumerate(codes[:, column]))
        wanted = [stream >> (32 * place) & 0xFFFFFFFF for place in range(blocks * bits)]
        assert [int(word) & 0xFFFFFFFF for word in words[:, column]] == wanted
    assert torch.equal(unpack(words, bits), codes.to(torch.uint8))


def test_four_bits_by_hand():
    """Catches: the high half first, as bitsandbytes packs."""
    codes = torch.zeros(32, 1, dtype=torch.uint8)
    codes[0], codes[1], codes[7] = 1, 2, 15
    assert pack(codes, 4)[:, 0].tolist() == [0xF0000021 - 2**32, 0, 0, 0]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_layer_comes_back_to_the_last_bit(bits, symmetric):
    """Catches: the "minus 1" of zeros forgotten on one side, or not wrapped at 0; float32 scales cut to float16."""
    layer = round_to_nearest(torch.rand(32, 64) - (0.5 if symmetric else 0), Scheme(bits, 16, symmetric))
    tensors = to_tensors(layer)
    again = from_tensors(tensors, bits)
    for name in ("codes", "scales", "zeros", "group_of"):
        assert torch.equal(getattr(layer, name), getattr(again, name)), name
    if symmetric and bits == 4:
        assert (tensors["qzeros"] == 0x77777777).all()  # 8 - 1 in every place: what vLLM takes "sym" to mean


def test_tensors_that_do_not_belong_together():
    """Catches: a checkpoint of mixed layers read as nonsense."""
    tensors = to_tensors(round_to_nearest(torch.randn(32, 64), Scheme(4, 16)))
    with pytest.raises(LabError, match=r"layer 7 has no g_idx"):
        from_tensors({name: value for name, value in tensors.items() if name != "g_idx"}, 4, "layer 7")
    for broken in ({"scales": tensors["scales"][:, :5]}, {"qweight": tensors["qweight"][:-4]},
                   {"g_idx": tensors["g_idx"] + 3}):  # fmt: skip
        with pytest.raises(LabError, match="do not belong together"):
            from_tensors(tensors | broken, 4)
