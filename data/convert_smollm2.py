"""SmolLM2-135M-Instruct from GGUF to a Hugging Face folder.

The package carries llama.cpp's format: one file with the tokenizer, the settings and weights packed by four
bits (Q4_1: 32 weights share a scale and a minimum). transformers reads it and multiplies the weights out;
they are saved in bfloat16, finer than the four bits they come from. 93 MB become 272 MB that any library
loads.
"""

import json
from pathlib import Path
from typing import Any

from labkit.files import write_json

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def build(members: Path, folder: Path) -> None:
    """Fill `folder` with config, generation config, tokenizer with its chat template, and safetensors."""
    import torch  # importing torch and transformers takes seconds, and only a first fetch needs them
    from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    logging.disable_progress_bar()
    modeling_gguf_pytorch_utils.tqdm = lambda items, **_: items  # this bar does not listen to the line above
    model = AutoModelForCausalLM.from_pretrained(members, gguf_file=GGUF, dtype=torch.float32)
    forget_quantizer(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(members, gguf_file=GGUF)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(folder)
    name_tokenizer_class(folder / "tokenizer_config.json")


def forget_quantizer(model: Any) -> None:
    """The weights are plain numbers now; with a quantizer still attached `save_pretrained` refuses."""
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def name_tokenizer_class(path: Path) -> None:
    """Write the class's old name, which transformers 4 (other environments have it) and 5 both know."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, settings | {"tokenizer_class": "PreTrainedTokenizerFast"})
