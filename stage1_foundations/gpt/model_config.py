"""Shapes of the model: one frozen dataclass, three named recipes for filling it.

    gpt2     learned positions, LayerNorm, GELU, biases, tied embedding: GPT-2, whose weights load
    modern   RoPE, QK-norm, RMSNorm, ReLU^2, zero-init projections: what paid for itself (NOTES.md)
    llama    RoPE, RMSNorm with gain, SwiGLU, grouped keys and values, tied: SmolLM2's weights load
"""

from dataclasses import dataclass

from labkit.errors import LabError
from stage1_foundations.gpt import feed_forward, normalisation, position_encoding

SHAPES = ("gpt2", "modern", "llama")
MAX_BIGRAM_ROWS = 65_536  # a 256-character vocabulary fits exactly; larger ones share rows by hash


@dataclass(frozen=True)
class ModelConfig:
    """Everything that the weights' shapes and the forward pass depend on.

    Raises:
        LabError: sizes that do not fit together, or an unknown name.
    """

    vocab_size: int
    context: int
    layers: int
    heads: int
    width: int
    kv_heads: int
    hidden: int  # width of the feed-forward part
    position: str = "learned"
    norm: str = "layernorm"
    norm_gain: bool = True
    norm_eps: float = 1e-5
    feed_forward: str = "gelu"
    bias: bool = True
    tied: bool = True
    qk_norm: bool = False
    zero_init: bool = False
    rope_base: float = 10_000.0
    bigram_rows: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise LabError(
                f"width {self.width} is not a multiple of heads {self.heads}",
                f"--width {self.heads * max(1, round(self.width / self.heads))}",
            )
        if self.heads % self.kv_heads:
            raise LabError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}", "--kv-heads 1")
        if self.position == "rope" and self.width // self.heads % 2:
            raise LabError(f"RoPE needs an even head size, got {self.width // self.heads}", "an even --width / --heads")
        for value, allowed in (
            (self.position, position_encoding.KINDS),
            (self.norm, normalisation.KINDS),
            (self.feed_forward, feed_forward.KINDS),
        ):
            if value not in allowed:
                raise LabError(f"unknown part {value!r}", f"one of {', '.join(allowed)}")


def bigram_table_rows(vocab_size: int) -> int:
    """A row for every pair of tokens, or as many as are kept."""
    return min(vocab_size**2, MAX_BIGRAM_ROWS)


def model_config(shape: str, *, vocab_size: int, context: int, layers: int, heads: int, width: int, **changes):
    """The configuration of a named shape, with single parts changed by keyword (the ablations do this).

    Raises:
        LabError: the shape has no such name.
    """
    sizes = {"vocab_size": vocab_size, "context": context, "layers": layers, "heads": heads, "width": width}
    if shape == "gpt2":
        parts = {"kv_heads": heads, "hidden": 4 * width}
    elif shape == "modern":
        parts = {
            "kv_heads": heads, "hidden": 4 * width, "position": "rope", "norm": "rmsnorm", "norm_gain": False,
            "norm_eps": 1e-6, "feed_forward": "relu2", "bias": False, "tied": False, "qk_norm": True,
            "zero_init": True,
        }  # fmt: skip
    elif shape == "llama":
        hidden = (8 * width // 3 + 63) // 64 * 64  # two thirds of 4x, since the gate is a third matrix
        parts = {
            "kv_heads": max(1, heads // 3) if heads % 3 == 0 else heads, "hidden": hidden, "position": "rope",
            "norm": "rmsnorm", "feed_forward": "swiglu", "bias": False,
        }  # fmt: skip
    else:
        raise LabError(f"unknown shape {shape!r}", f"--shape {' | '.join(SHAPES)}")
    return ModelConfig(**{**sizes, **parts, **changes})
